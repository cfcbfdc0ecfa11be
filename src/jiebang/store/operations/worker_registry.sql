-- name: wish_of_workers
-- Records an operator's wish for some workers (NULL: all live ones).
UPDATE platform.worker SET wish = $2, wished_by = $3, wished_at = $4
WHERE seen_until > $4 AND ($1::text[] IS NULL OR worker_id = ANY ($1))
RETURNING worker_id

-- name: workers
-- Every worker that is live or died lately, with its buckets and since when its oldest due case has waited.
SELECT w.worker_id, w.seen_until, w.state, w.wish, w.wished_by, w.wished_at, count(l.bucket)::integer AS buckets,
    min(d.due_at) AS oldest_due_at
FROM platform.worker w
LEFT JOIN platform.bucket_lease l ON l.worker_id = w.worker_id AND l.until > $1
LEFT JOIN LATERAL (
    SELECT c.due_at FROM platform.cases c WHERE c.bucket = l.bucket AND c.due_at <= $1
        AND coalesce(c.rests_until, c.due_at) <= $1 ORDER BY c.due_at LIMIT 1
) d ON true
GROUP BY w.worker_id ORDER BY w.worker_id
