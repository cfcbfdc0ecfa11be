-- The gate of security: logins, for `gate.py`.

-- name: lock_logins
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT a.account_id, a.login_needs_sms FROM security.account a
WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR UPDATE

-- name: login_codes
-- The codes that logins wait for, read after the lock.
SELECT c.account_id, c.nonce, c.sent_at, c.expires_at, c.tries_left FROM security.login_code c
WHERE c.account_id = ANY ($1::bigint[])

-- name: logged_in
-- The logins that the given requests have made: the answer of a repeat.
SELECT l.account_id, l.made_by, l.login_id, l.at FROM security.login l
WHERE l.account_id = ANY ($1::bigint[]) AND l.made_by = ANY ($2::uuid[])

-- name: last_logins
SELECT a.account_id, coalesce((SELECT max(l.login_id) FROM security.login l WHERE l.account_id = a.account_id), 0) AS last
FROM security.account a
WHERE a.account_id = ANY ($1::bigint[])

-- name: log_in
INSERT INTO security.login (account_id, login_id, device_id, place, at, made_by)
SELECT i.account_id, i.login_id, i.device_id, i.place, $6::timestamptz, i.made_by
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::uuid[])
    AS i (account_id, login_id, device_id, place, made_by)

-- name: keep_codes
-- A new code puts an older one out of use; a wrong try costs one.
INSERT INTO security.login_code (account_id, nonce, sent_at, expires_at, tries_left)
SELECT i.account_id, i.nonce, i.sent_at, i.expires_at, i.tries_left
FROM unnest($1::bigint[], $2::bytea[], $3::timestamptz[], $4::timestamptz[], $5::smallint[])
    AS i (account_id, nonce, sent_at, expires_at, tries_left)
ON CONFLICT (account_id) DO UPDATE SET nonce = excluded.nonce, sent_at = excluded.sent_at,
    expires_at = excluded.expires_at, tries_left = excluded.tries_left

-- name: drop_codes
-- A code is good for one login.
DELETE FROM security.login_code c WHERE c.account_id = ANY ($1::bigint[])
