-- The gate of social: moments and friend requests, for `gate.py`.

-- name: lock
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT a.account_id, a.moments_per_day, a.friend_requests_blocked FROM social.account a
WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR UPDATE

-- name: moments
-- How many moments each account has posted since $2, and its last number, read after the lock. Deleted ones count.
SELECT a.account_id,
    (SELECT count(*) FROM social.moment m WHERE m.account_id = a.account_id AND m.posted_at >= $2::timestamptz) AS today,
    coalesce((SELECT max(m.moment_id) FROM social.moment m WHERE m.account_id = a.account_id), 0) AS last
FROM social.account a
WHERE a.account_id = ANY ($1::bigint[])

-- name: posted
-- The moments that the given requests have posted: the answer of a repeat.
SELECT m.account_id, m.made_by, m.moment_id, m.posted_at FROM social.moment m
WHERE m.account_id = ANY ($1::bigint[]) AND m.made_by = ANY ($2::uuid[])

-- name: post
INSERT INTO social.moment (account_id, moment_id, body, images, visibility, posted_at, made_by)
SELECT i.account_id, i.moment_id, i.body, i.images, i.visibility, $7::timestamptz, i.made_by
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::text[], $6::uuid[])
    AS i (account_id, moment_id, body, images, visibility, made_by)

-- name: last_requests
-- The last number of the friend requests that came to each account, read after the lock.
SELECT a.account_id,
    coalesce((SELECT max(r.request_id) FROM social.friend_request r WHERE r.account_id = a.account_id), 0) AS last
FROM social.account a
WHERE a.account_id = ANY ($1::bigint[])

-- name: asked
-- The friend requests that the given requests have sent: the answer of a repeat.
SELECT r.account_id, r.made_by, r.sender_id, r.state = 'blocked' AS blocked FROM social.friend_request r
WHERE r.account_id = ANY ($1::bigint[]) AND r.made_by = ANY ($2::uuid[])

-- name: ask
-- A blocked one is kept too: whom it was meant for can read later who asked.
INSERT INTO social.friend_request (account_id, request_id, sender_id, greeting, state, sent_at, ended_at, made_by)
SELECT i.account_id, i.request_id, i.sender_id, i.greeting, CASE WHEN i.blocked THEN 'blocked' ELSE 'waiting' END,
    $7::timestamptz, CASE WHEN i.blocked THEN $7::timestamptz END, i.made_by
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::boolean[], $6::uuid[])
    AS i (account_id, request_id, sender_id, greeting, blocked, made_by)
