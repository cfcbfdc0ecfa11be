-- name: read_causes
-- Those of the given accounts that exist, each with the newest done or confirming case of every kind, and the one under way.
SELECT a.account_id, c.case_no, c.kind, c.state, c.created_at, c.ended_at
FROM platform.account a
LEFT JOIN LATERAL (
    SELECT DISTINCT ON (c.kind, c.ended_at IS NULL) c.case_no, c.kind, c.state, c.created_at, c.ended_at
    FROM platform.cases c
    WHERE c.account_id = a.account_id AND c.account_id = ANY ($1::bigint[]) AND (c.state = 'done' OR c.ended_at IS NULL)
    ORDER BY c.kind, c.ended_at IS NULL, c.case_no DESC
) c ON true
WHERE a.account_id = ANY ($1::bigint[])
ORDER BY a.account_id, c.case_no
