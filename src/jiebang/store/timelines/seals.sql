-- Seals on timelines: one chain for each installation.

-- name: last_seal
-- The end of the chain, which the next seal extends.
SELECT seal_no, ended_until, moved_until, statement FROM platform.timeline_seal WHERE seal_no > 0 ORDER BY seal_no DESC LIMIT 1

-- name: seal_statement
-- What one seal says.
SELECT statement FROM platform.timeline_seal WHERE seal_no = $1

-- name: sealed_until
-- Where the sealer stands: the floor, the time by the database's clock, and when the first case ended that is not sealed yet.
SELECT (SELECT until FROM platform.seal_floor WHERE only_one = 1) AS floor, statement_timestamp() AS at,
    (SELECT ended_at FROM platform.cases WHERE ended_at > $1 ORDER BY ended_at LIMIT 1) AS first_ended

-- name: raise_floor
-- From the commit of this on, no save ends a case at or before the given time.
INSERT INTO platform.seal_floor AS kept (only_one, until) VALUES (1, $1)
ON CONFLICT (only_one) DO UPDATE SET until = excluded.until WHERE kept.until < excluded.until

-- name: saves_under_way
-- The transactions that have read the floor and not ended yet: each holds a lock on its table, and may have read an older one.
-- Our own lock tells which database it is.
SELECT l.virtualtransaction AS name
FROM platform.seal_floor f
JOIN pg_catalog.pg_locks l ON l.locktype = 'relation' AND l.relation = f.tableoid AND l.pid <> pg_backend_pid()
WHERE f.only_one = 1 AND l.database = (SELECT o.database FROM pg_catalog.pg_locks o
    WHERE o.locktype = 'relation' AND o.relation = f.tableoid AND o.pid = pg_backend_pid() LIMIT 1)

-- name: ended_cases
-- Cases that ended after the last seal, up to a time until which all of them are known. Cases that ended at the same moment are
-- read together, so that a time marks the position.
SELECT account_id, case_no, revision, head, ended_at FROM platform.cases
WHERE ended_at > $1 AND ended_at <= $2
ORDER BY ended_at
FETCH FIRST ($3::integer) ROWS WITH TIES

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
