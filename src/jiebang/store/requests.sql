-- Every statement that joins names its accounts once more as `= ANY ($1)`: a condition on the key that no statistic, missing
-- or of a time when the table was empty, can talk the planner out of (tests/store/test_plans.py).

-- name: insert_proofs
-- The proofs a new case asks for; a case that already has them keeps them.
INSERT INTO platform.proof (account_id, case_no, method, nonce, expires_at, tries_left)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::smallint[])
ON CONFLICT DO NOTHING

-- name: load_proofs
-- The proofs of the given cases.
SELECT p.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.proof p ON p.account_id = i.account_id AND p.case_no = i.case_no AND p.account_id = ANY ($1::bigint[])
ORDER BY p.account_id, p.case_no, p.method

-- name: lock_proofs
-- The same, locked in key order: guesses of one case take turns, so that parallel ones cannot share a try.
SELECT p.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.proof p ON p.account_id = i.account_id AND p.case_no = i.case_no AND p.account_id = ANY ($1::bigint[])
ORDER BY p.account_id, p.case_no, p.method
FOR UPDATE OF p

-- name: save_proofs
-- Writes back proofs that were locked and judged.
UPDATE platform.proof p
SET nonce = i.nonce, expires_at = i.expires_at, tries_left = i.tries_left, proven_at = i.proven_at
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::smallint[], $7::timestamptz[])
    AS i (account_id, case_no, method, nonce, expires_at, tries_left, proven_at)
WHERE p.account_id = i.account_id AND p.case_no = i.case_no AND p.method = i.method AND p.account_id = ANY ($1::bigint[])

-- name: wrong_tries
-- How often the account was guessed at by one method since a time, over all its cases and the remedies that ask for proofs.
SELECT (
    SELECT coalesce(sum(greatest($3 - p.tries_left, 0)), 0)
    FROM platform.cases c
    JOIN platform.proof p ON p.account_id = c.account_id AND p.case_no = c.case_no
    WHERE c.account_id = $1 AND c.created_at > $4 AND p.method = $2
)::bigint + (
    SELECT coalesce(sum(s.wrong), 0) FROM platform.step_up s WHERE s.account_id = $1 AND s.created_at > $4
)::bigint

-- name: insert_messages
-- What is to be told; the gateway reads it when due.
INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
SELECT account_id, message_id, bucket, case_no, template, params::jsonb, $7, $7
FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::bigint[], $5::text[], $6::text[])
    AS i (account_id, message_id, bucket, case_no, template, params)
ON CONFLICT DO NOTHING

-- name: due_messages
-- Due messages of the given buckets, the oldest first.
SELECT m.account_id, m.message_id, m.case_no, m.template, m.params::text AS params, m.created_at, m.attempt
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT * FROM platform.outbox o WHERE o.bucket = b.bucket AND o.due_at <= $2 ORDER BY o.due_at LIMIT $3
) m
ORDER BY m.due_at
LIMIT $3

-- name: delivered_messages
-- Told: the row keeps its first time of delivery and leaves the due index.
UPDATE platform.outbox o SET delivered_at = coalesce(o.delivered_at, $3), due_at = NULL
FROM unnest($1::bigint[], $2::uuid[]) AS i (account_id, message_id)
WHERE o.account_id = i.account_id AND o.message_id = i.message_id AND o.account_id = ANY ($1::bigint[])

-- name: postponed_messages
-- Not told: again at the given time, unless another worker has told it meanwhile.
UPDATE platform.outbox o
SET due_at = CASE WHEN o.delivered_at IS NULL THEN i.due_at END, attempt = o.attempt + (o.delivered_at IS NULL)::integer
FROM unnest($1::bigint[], $2::uuid[], $3::timestamptz[]) AS i (account_id, message_id, due_at)
WHERE o.account_id = i.account_id AND o.message_id = i.message_id AND o.account_id = ANY ($1::bigint[])

-- name: claim_key
-- Claims a key for a mutation. A key that another transaction has claimed and not yet committed is waited for; one whose
-- lifetime has run out is taken over, and so is one whose holder has gone without an answer, by the same request; any
-- other gives no row back.
INSERT INTO platform.idempotency AS kept (caller, route, key, body_hash, expires_at, holder, held_until)
VALUES ($1, $2, $3, $4, $5, $7, $8)
ON CONFLICT (caller, route, key) DO UPDATE
SET body_hash = excluded.body_hash, expires_at = excluded.expires_at, status = NULL, answer = NULL,
    holder = excluded.holder, held_until = excluded.held_until
WHERE kept.expires_at <= $6 OR (kept.status IS NULL AND kept.held_until <= $6 AND kept.body_hash = excluded.body_hash)
RETURNING true

-- name: kept_answer
-- What is kept for a key whose lifetime has not run out.
WITH kept AS MATERIALIZED (  -- by its key: the index on its lifetime would read every answer that still lives
    SELECT body_hash, status, answer, held_until, expires_at
    FROM platform.idempotency WHERE caller = $1 AND route = $2 AND key = $3
)
SELECT body_hash, status, answer, held_until FROM kept WHERE expires_at > $4

-- name: keep_answer
-- Keeps the answer of a key that is still held by this request.
UPDATE platform.idempotency SET status = $4, answer = $5, holder = NULL, held_until = NULL
WHERE caller = $1 AND route = $2 AND key = $3 AND status IS NULL AND holder = $6
RETURNING true

-- name: settle_key
-- Keeps a refusal as the answer, unless the key has one or another request holds it: then no row comes back.
INSERT INTO platform.idempotency AS kept (caller, route, key, body_hash, expires_at, status, answer)
VALUES ($1, $2, $3, $4, $5, $8, $9)
ON CONFLICT (caller, route, key) DO UPDATE
SET body_hash = excluded.body_hash, expires_at = excluded.expires_at, status = excluded.status, answer = excluded.answer,
    holder = NULL, held_until = NULL
WHERE kept.expires_at <= $6
    OR (kept.status IS NULL AND kept.body_hash = excluded.body_hash AND (kept.holder = $7 OR kept.held_until <= $6))
RETURNING true

-- name: release_key
-- Lets go of a key without an answer: the same request may be carried out again at once, no other.
UPDATE platform.idempotency SET held_until = 'epoch'
WHERE caller = $1 AND route = $2 AND key = $3 AND status IS NULL AND holder = $4

-- name: purge_keys
-- Sweeps keys whose lifetime has run out, a bounded number at a time.
WITH stale AS (
    SELECT caller, route, key FROM platform.idempotency WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM platform.idempotency kept USING stale
WHERE kept.caller = stale.caller AND kept.route = stale.route AND kept.key = stale.key
    AND kept.caller = ANY (ARRAY(SELECT caller FROM stale))
