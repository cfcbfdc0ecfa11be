-- Of an account that once had a credential: without any there is nothing to end.
SELECT a.account_id, 'enterprise_api' AS name, NULL::bigint AS value, NULL::bigint AS used, NULL::timestamptz AS until
FROM enterprise.account a
WHERE a.account_id = ANY ($1::bigint[]) AND NOT a.api_rights AND $2::timestamptz IS NOT NULL
  AND EXISTS (SELECT FROM enterprise.api_credential c WHERE c.account_id = a.account_id AND c.account_id = ANY ($1::bigint[]))
