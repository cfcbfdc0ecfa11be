-- name: read_leases
-- All bucket leases and live workers; the table lock taken before makes the read and the writes one decision.
SELECT bucket, worker_id, until FROM platform.bucket_lease

-- name: live_workers
-- Workers seen within their lease that are to work: the others' buckets are for these.
SELECT worker_id FROM platform.worker WHERE seen_until > $1 AND wish = 'run'

-- name: seen_worker
-- A worker's heartbeat, with what it says of itself; rows of workers long gone are swept with it. Tells what is wanted of it,
-- and whether a recovery stops all claims.
WITH swept AS (DELETE FROM platform.worker WHERE seen_until < $2::timestamptz - interval '1 hour')
INSERT INTO platform.worker (worker_id, seen_until, state) VALUES ($1, $2, $3)
ON CONFLICT (worker_id) DO UPDATE SET seen_until = excluded.seen_until, state = excluded.state
RETURNING wish, EXISTS (SELECT FROM platform.recovery WHERE ended_at IS NULL) AS recovering

-- name: hold_buckets
-- Takes or renews the given buckets for one worker.
INSERT INTO platform.bucket_lease (bucket, worker_id, until)
SELECT b, $2, $3 FROM unnest($1::smallint[]) AS b
ON CONFLICT (bucket) DO UPDATE SET worker_id = excluded.worker_id, until = excluded.until

-- name: release_buckets
-- Gives up the buckets of one worker that it does not keep.
DELETE FROM platform.bucket_lease WHERE worker_id = $1 AND bucket <> ALL ($2::smallint[])

-- name: release_worker
-- A worker that ends gives up its buckets and no longer counts: else its share would stay with nobody until its lease runs out.
WITH gone AS (DELETE FROM platform.worker WHERE worker_id = $1)
DELETE FROM platform.bucket_lease WHERE worker_id = $1
