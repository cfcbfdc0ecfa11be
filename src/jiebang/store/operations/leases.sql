-- name: read_leases
-- All bucket leases; the table lock taken before makes the read and the writes one decision.
SELECT bucket, worker_id, until FROM platform.bucket_lease

-- name: live_workers
-- Workers whose heartbeat is current and that may work: they share all buckets. One whose own clock is off may not.
SELECT worker_id FROM platform.worker WHERE seen_until > $1 AND wish = 'run' AND clock_off_ms IS NULL

-- name: record_heartbeat
-- A worker's heartbeat with its state; deletes the rows of workers that are long gone. Returns the operator's wish, and whether
-- a recovery stops all claims.
WITH swept AS (DELETE FROM platform.worker WHERE seen_until < $2::timestamptz - interval '1 hour')
INSERT INTO platform.worker (worker_id, seen_until, state, clock_off_ms) VALUES ($1, $2, $3, $4)
ON CONFLICT (worker_id) DO UPDATE
SET seen_until = excluded.seen_until, state = excluded.state, clock_off_ms = excluded.clock_off_ms
RETURNING wish, EXISTS (SELECT FROM platform.recovery WHERE ended_at IS NULL) AS recovering

-- name: hold_buckets
-- Leases the given buckets to one worker, or renews its leases.
INSERT INTO platform.bucket_lease (bucket, worker_id, until)
SELECT b, $2, $3 FROM unnest($1::smallint[]) AS b
ON CONFLICT (bucket) DO UPDATE SET worker_id = excluded.worker_id, until = excluded.until

-- name: release_buckets
-- Releases the buckets of one worker except those given.
DELETE FROM platform.bucket_lease WHERE worker_id = $1 AND bucket <> ALL ($2::smallint[])

-- name: release_worker
-- A worker that ends releases its buckets and its own row: otherwise its share would be idle until its lease expires.
WITH gone AS (DELETE FROM platform.worker WHERE worker_id = $1)
DELETE FROM platform.bucket_lease WHERE worker_id = $1
