-- name: overdue_cases
-- How many cases have been due since before $2, counted up to $3: one index descent per bucket, however many there are.
SELECT count(*) FROM (
    SELECT FROM unnest($1::smallint[]) AS b (bucket)
    CROSS JOIN LATERAL (SELECT FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $2
        AND coalesce(c.rests_until, c.due_at) <= $2 LIMIT $3) c
    LIMIT $3
) AS overdue
