-- Seals on timelines: one chain for each installation.

-- name: last_seal
-- The end of the chain: what the next seal goes on from.
SELECT seal_no, ended_until, moved_until, statement FROM platform.timeline_seal WHERE seal_no > 0 ORDER BY seal_no DESC LIMIT 1

-- name: ended_cases
-- What ended after the last seal and long enough ago that no save still under way can end earlier: by the database's own
-- clock too, whatever ours says. All that ended at the same moment come together, so that a time says where we are.
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
-- Adds a seal at the end of the chain; of two workers at once one gets nothing back, and starts over.
INSERT INTO platform.timeline_seal (seal_no, ended_until, moved_until, statement, cases)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (seal_no) DO NOTHING
RETURNING seal_no

-- name: seals_of_cases
-- The seal that each of the given cases came under when it had ended, if it has one by now.
SELECT c.account_id, c.case_no, s.seal_no, s.ended_until, s.moved_until, s.statement, s.cases
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
CROSS JOIN LATERAL (
    SELECT * FROM platform.timeline_seal t WHERE t.ended_until >= c.ended_at ORDER BY t.ended_until, t.seal_no LIMIT 1
) s

-- name: seal_page
-- The next seals of the chain: how an audit walks it in constant memory.
SELECT seal_no, ended_until, moved_until, statement, cases FROM platform.timeline_seal
WHERE seal_no > $1 ORDER BY seal_no LIMIT $2

-- name: sealed_heads
-- What stands in the timelines where a seal says how they stood: the row at that revision, and the case as it is now.
SELECT i.account_id, i.case_no, i.revision, e.head, c.revision AS stands_at, c.ended_at
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
LEFT JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
LEFT JOIN platform.case_event e ON e.account_id = i.account_id AND e.case_no = i.case_no AND e.revision = i.revision
    AND e.account_id = ANY ($1::bigint[])

-- name: ended_between
-- The cases that ended in the time that one seal is about.
SELECT account_id, case_no FROM platform.cases WHERE ended_at > $1 AND ended_at <= $2 ORDER BY ended_at LIMIT $3

-- name: first_ended_after
-- When the first case ended that no seal speaks of yet.
SELECT ended_at FROM platform.cases WHERE ended_at > $1 ORDER BY ended_at LIMIT 1
