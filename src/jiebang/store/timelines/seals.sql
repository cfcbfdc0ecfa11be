-- Seals on timelines: one chain for each installation.

-- name: last_seal
-- The end of the chain, which the next seal extends.
SELECT seal_no, ended_until, moved_until, statement FROM platform.timeline_seal WHERE seal_no > 0 ORDER BY seal_no DESC LIMIT 1

-- name: ended_cases
-- Cases that ended after the last seal, and long enough ago that no save still under way can end one earlier: by the
-- database's clock too, whatever ours says. Cases that ended at the same moment are read together, so that a time marks the
-- position.
SELECT account_id, case_no, revision, head, ended_at FROM platform.cases
WHERE ended_at > $1 AND ended_at <= least($2::timestamptz, statement_timestamp() - $3::interval)
ORDER BY ended_at
FETCH FIRST ($4::integer) ROWS WITH TIES

-- name: live_heads
-- A page of live cases in the order of their accounts, each with the time of its last save.
SELECT c.account_id, c.case_no, c.revision, c.head, e.at
FROM (
    SELECT * FROM platform.cases WHERE ended_at IS NULL AND account_id > $1 ORDER BY account_id LIMIT $2
) c
LEFT JOIN LATERAL (
    SELECT at FROM platform.case_event e
    WHERE e.account_id = c.account_id AND e.case_no = c.case_no AND e.revision = c.revision
    LIMIT 1
) e ON true
ORDER BY c.account_id

-- name: insert_seal
-- Appends a seal to the chain; of two concurrent workers one gets no row back, and starts over.
INSERT INTO platform.timeline_seal (seal_no, ended_until, moved_until, statement, cases)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (seal_no) DO NOTHING
RETURNING seal_no

-- name: seals_of_cases
-- The seal of each of the given cases that ended: the first that reaches as far, if there is one by now.
SELECT c.account_id, c.case_no, s.seal_no, s.ended_until, s.moved_until, s.statement, s.cases
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
CROSS JOIN LATERAL (
    SELECT * FROM platform.timeline_seal t WHERE t.ended_until >= c.ended_at ORDER BY t.ended_until, t.seal_no LIMIT 1
) s

-- name: seal_page
-- The next seals of the chain: an audit reads it page by page, in constant memory.
SELECT seal_no, ended_until, moved_until, statement, cases FROM platform.timeline_seal
WHERE seal_no > $1 ORDER BY seal_no LIMIT $2

-- name: sealed_heads
-- What the database holds for the leaves of a seal: the row at each leaf's revision, and the case as it is now.
SELECT i.account_id, i.case_no, i.revision, e.head, c.revision AS stands_at, c.ended_at
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
LEFT JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
LEFT JOIN platform.case_event e ON e.account_id = i.account_id AND e.case_no = i.case_no AND e.revision = i.revision
    AND e.account_id = ANY ($1::bigint[])

-- name: ended_between
-- The cases that ended in the time that one seal covers.
SELECT account_id, case_no FROM platform.cases WHERE ended_at > $1 AND ended_at <= $2 ORDER BY ended_at LIMIT $3

-- name: first_ended_after
-- When the first case ended that no seal covers yet.
SELECT ended_at FROM platform.cases WHERE ended_at > $1 ORDER BY ended_at LIMIT 1
