SELECT a.account_id, 'api_calls' AS name, a.test_calls_per_day::bigint AS value, NULL::bigint AS used, NULL::timestamptz AS until
FROM openplatform.account a
WHERE a.account_id = ANY ($1::bigint[]) AND a.api_quota_level = 'test' AND $2::timestamptz IS NOT NULL
