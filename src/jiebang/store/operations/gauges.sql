-- What the gauges read, in one statement every so often: one index descent per bucket, however many rows there are.

-- name: readings
-- When the oldest due case and the oldest due message were due; and how many cases under way are past their deadline, by state
-- and marks, since which deadline (up to $4 per bucket): late where the deadline was before $3, stuck where it was before $5. A case that rests beyond
-- now ($6) is under way and not counted as the oldest. Only a case due soon ($2) can be stuck, because no op waits longer than
-- the longest back-off; parked cases have an index of their own. A case that a recovery made again may have no deadline.
SELECT 'due' AS what, '' AS plan, '' AS kind, '' AS state, '' AS marks, 1::bigint AS cases, min(d.due_at) AS oldest_at
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT due_at FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at IS NOT NULL
        AND coalesce(c.rests_until, c.due_at) <= greatest($6, c.due_at) ORDER BY c.due_at LIMIT 1) d
UNION ALL
SELECT 'message', '', '', '', '', 1, min(m.due_at)
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT due_at FROM platform.outbox o WHERE o.bucket = b.bucket AND o.due_at IS NOT NULL ORDER BY o.due_at LIMIT 1) m
UNION ALL
SELECT u.what, u.plan, u.kind, u.state, u.marks, count(*), min(u.since)
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    (SELECT CASE WHEN coalesce(c.deadline, c.created_at) < $5 THEN 'stuck' ELSE 'late' END AS what, plan, kind, state, marks,
         coalesce(c.deadline, c.created_at) AS since FROM platform.cases c
     WHERE c.bucket = b.bucket AND c.due_at <= $2 AND c.state IN ('trying', 'confirming', 'cancelling')
         AND coalesce(c.deadline, c.created_at) < $3
     LIMIT $4)
    UNION ALL
    (SELECT 'parked', plan, kind, state, marks, coalesce(c.deadline, c.created_at) AS since FROM platform.cases c
     WHERE c.bucket = b.bucket AND c.due_at IS NULL AND c.ended_at IS NULL AND c.state IN ('confirming', 'cancelling')
     LIMIT $4)
) u
GROUP BY u.what, u.plan, u.kind, u.state, u.marks
