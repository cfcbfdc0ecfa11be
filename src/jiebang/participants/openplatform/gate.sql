-- The gate of openplatform: API calls of apps and mini programs, for `gate.py`.

-- name: lock_developers
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT a.account_id, a.api_quota_level = 'test' AS at_test, a.test_calls_per_day FROM openplatform.account a
WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR UPDATE

-- name: subjects
-- The apps that are open and the mini programs that are published.
SELECT p.account_id, p.app_id AS subject_id FROM openplatform.app p
WHERE p.account_id = ANY ($1::bigint[]) AND p.closed_at IS NULL
UNION ALL
SELECT m.account_id, m.program_id FROM openplatform.mini_program m
WHERE m.account_id = ANY ($1::bigint[]) AND m.state = 'published'

-- name: quotas
SELECT q.account_id, q.app_id, q.api, q.calls_per_day FROM openplatform.quota q WHERE q.account_id = ANY ($1::bigint[])

-- name: used
-- What was called on the day $2, read after the lock.
SELECT u.account_id, u.subject_id, u.api, u.calls FROM openplatform.api_use u
WHERE u.account_id = ANY ($1::bigint[]) AND u.used_on = $2::date

-- name: count_calls
-- The count of a day before is over.
INSERT INTO openplatform.api_use (account_id, subject_id, api, used_on, calls)
SELECT i.account_id, i.subject_id, i.api, $5::date, i.calls
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::integer[]) AS i (account_id, subject_id, api, calls)
ON CONFLICT (account_id, subject_id, api) DO UPDATE SET used_on = excluded.used_on, calls = excluded.calls
