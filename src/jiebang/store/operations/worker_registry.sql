-- name: wish_of_workers
-- Records an operator's wish for some workers (NULL: all live ones).
UPDATE platform.worker SET wish = $2, wished_by = $3, wished_at = $4
WHERE seen_until > $4 AND ($1::text[] IS NULL OR worker_id = ANY ($1))
RETURNING worker_id

-- name: workers
-- Every worker that is live or died lately, with its buckets and since when its oldest due case has waited.
SELECT w.worker_id, w.seen_until, w.state, w.wish, w.wished_by, w.wished_at, w.clock_off_ms,
    count(l.bucket)::integer AS buckets,
    min(d.due_at) AS oldest_due_at
FROM platform.worker w
LEFT JOIN platform.bucket_lease l ON l.worker_id = w.worker_id AND l.until > $1
LEFT JOIN LATERAL (
    SELECT c.due_at FROM platform.cases c WHERE c.bucket = l.bucket AND c.due_at <= $1
        AND coalesce(c.rests_until, c.due_at) <= $1 ORDER BY c.due_at LIMIT 1
) d ON true
GROUP BY w.worker_id ORDER BY w.worker_id

-- name: free_worker
-- Deletes a worker's leases and heartbeat, and records who did it. No row where there is neither. A worker that is alive after
-- all takes its share again at its next heartbeat; what it was driving is guarded by its saves.
WITH leases AS (
    DELETE FROM platform.bucket_lease WHERE worker_id = $1 RETURNING bucket
), heartbeat AS (
    DELETE FROM platform.worker WHERE worker_id = $1 RETURNING seen_until
), counted AS (
    SELECT (SELECT count(*) FROM leases)::integer AS buckets, (SELECT max(seen_until) FROM heartbeat) AS seen_until
)
INSERT INTO platform.worker_freed (worker_id, freed_at, freed_by, buckets, seen_until)
SELECT $1, $3, $2, c.buckets, c.seen_until FROM counted c WHERE c.buckets > 0 OR c.seen_until IS NOT NULL
RETURNING buckets, seen_until

-- name: freed_workers
-- The last times that an operator freed a worker's buckets.
SELECT worker_id, freed_at, freed_by, buckets, seen_until FROM platform.worker_freed ORDER BY freed_at DESC, worker_id LIMIT $1
