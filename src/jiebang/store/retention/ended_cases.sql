-- Cases that ended, read once each for the keys that they destroy.

-- name: settled_until
-- A time up to which every case that ended is known: the last seal's, or one so long ago that no save is under way from before it.
SELECT greatest((SELECT ended_until FROM platform.timeline_seal WHERE seal_no > 0 ORDER BY seal_no DESC LIMIT 1),
    $1::timestamptz)

-- name: ended_page
-- The next cases that ended. Cases that ended at the same moment are read together, so that a time marks the position.
SELECT account_id, case_no, kind, state, plan, ended_at FROM platform.cases
WHERE ended_at > $1 AND ended_at <= $2
ORDER BY ended_at
FETCH FIRST ($3::integer) ROWS WITH TIES

-- name: done_of
-- The cases of accounts that were carried out, in the order of their ends.
SELECT account_id, case_no, kind, state, plan, ended_at FROM platform.cases
WHERE account_id = ANY ($1::bigint[]) AND state = 'done'
ORDER BY ended_at
