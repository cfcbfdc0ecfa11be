-- name: claim_key
-- Claims a key for a mutation. Waits for another transaction that has claimed the key and not yet committed. Takes over a key
-- that has expired, or whose holder has gone without an answer, if the request is the same; otherwise returns no row.
INSERT INTO platform.idempotency AS kept (caller, route, key, body_hash, expires_at, holder, held_until)
VALUES ($1, $2, $3, $4, $5, $7, $8)
ON CONFLICT (caller, route, key) DO UPDATE
SET body_hash = excluded.body_hash, expires_at = excluded.expires_at, status = NULL, answer = NULL,
    holder = excluded.holder, held_until = excluded.held_until
WHERE kept.expires_at <= $6
    OR (kept.status IS NULL AND kept.held_until <= $6 AND kept.body_hash IN (excluded.body_hash, $9))
RETURNING true

-- name: kept_answer
-- What is stored for a key that has not expired.
WITH kept AS MATERIALIZED (  -- by its key: the index on expires_at would read every answer that has not expired
    SELECT body_hash, status, answer, held_until, expires_at
    FROM platform.idempotency WHERE caller = $1 AND route = $2 AND key = $3
)
SELECT body_hash, status, answer, held_until, expires_at FROM kept WHERE expires_at > $4

-- name: keep_answer
-- Stores the answer of a key that this request still holds.
UPDATE platform.idempotency SET status = $4, answer = $5, holder = NULL, held_until = NULL
WHERE caller = $1 AND route = $2 AND key = $3 AND status IS NULL AND holder = $6
RETURNING true

-- name: settle_key
-- Stores a refusal as the answer, unless the key has one or another request holds it: then returns no row.
INSERT INTO platform.idempotency AS kept (caller, route, key, body_hash, expires_at, status, answer)
VALUES ($1, $2, $3, $4, $5, $8, $9)
ON CONFLICT (caller, route, key) DO UPDATE
SET body_hash = excluded.body_hash, expires_at = excluded.expires_at, status = excluded.status, answer = excluded.answer,
    holder = NULL, held_until = NULL
WHERE kept.expires_at <= $6
    OR (kept.status IS NULL AND kept.body_hash IN (excluded.body_hash, $10)
        AND (kept.holder = $7 OR kept.held_until <= $6))
RETURNING true

-- name: release_key
-- Releases a key without an answer: only the same request may be carried out again, at once.
UPDATE platform.idempotency SET held_until = 'epoch'
WHERE caller = $1 AND route = $2 AND key = $3 AND status IS NULL AND holder = $4

-- name: purge_keys
-- Deletes expired keys, a bounded number at a time.
WITH stale AS (
    SELECT caller, route, key FROM platform.idempotency WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM platform.idempotency kept USING stale
WHERE kept.caller = stale.caller AND kept.route = stale.route AND kept.key = stale.key
    AND kept.caller = ANY (ARRAY(SELECT caller FROM stale))
