-- name: rows_after
-- The timelines of several cases, each after the revision that its reader has already seen.
SELECT e.account_id, e.case_no, e.revision, e.at, e.entries::text AS entries
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
JOIN platform.case_event e ON e.account_id = i.account_id AND e.case_no = i.case_no AND e.account_id = ANY ($1::bigint[])
    AND e.revision > i.revision
ORDER BY e.account_id, e.case_no, e.revision

-- name: walk
-- The cases of a range of accounts with all rows of their timelines, in order, from one snapshot.
SELECT c.account_id, c.case_no, c.revision, c.state, c.head, c.created_at, c.reason,
    e.revision AS row_revision, e.at, e.entries::text AS entries,
    e.head AS row_head
FROM platform.cases c
LEFT JOIN platform.case_event e ON e.account_id = c.account_id AND e.case_no = c.case_no
    AND e.account_id > $1 AND e.account_id <= $2
WHERE c.account_id > $1 AND c.account_id <= $2
ORDER BY c.account_id, c.case_no, e.revision

-- name: recorded_rows
-- The rows of the timelines of several cases as they were recorded, in order.
SELECT e.account_id, e.case_no, e.revision, e.at, e.entries::text AS entries, e.head
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.case_event e ON e.account_id = i.account_id AND e.case_no = i.case_no AND e.account_id = ANY ($1::bigint[])
ORDER BY e.account_id, e.case_no, e.revision

-- name: orphaned_rows
-- Rows of timelines whose case is gone.
SELECT e.account_id, e.case_no, e.revision FROM platform.case_event e
WHERE e.account_id > $1 AND e.account_id <= $2
  AND NOT EXISTS (SELECT FROM platform.cases c WHERE c.account_id = e.account_id AND c.case_no = e.case_no
      AND c.account_id > $1 AND c.account_id <= $2)
ORDER BY e.account_id, e.case_no, e.revision
LIMIT $3
