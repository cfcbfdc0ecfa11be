SELECT a.account_id, 'games' AS name, NULL::bigint AS value, NULL::bigint AS used, NULL::timestamptz AS until
FROM gaming.account a
WHERE a.account_id = ANY ($1::bigint[]) AND a.suspended AND $2::timestamptz IS NOT NULL
