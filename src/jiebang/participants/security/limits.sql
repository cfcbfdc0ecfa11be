SELECT a.account_id, 'login' AS name, NULL::bigint AS value, NULL::bigint AS used, NULL::timestamptz AS until
FROM security.account a
WHERE a.account_id = ANY ($1::bigint[]) AND a.login_needs_sms AND $2::timestamptz IS NOT NULL
