-- name: suspects
-- Decided cases that may need an operator: an op is parked, or was sent again at least $3 times; and live cases that no worker
-- steps any more. Only a case due soon ($2) can be silent, because no op waits longer than the longest back-off. since: when
-- the case entered its state.
SELECT c.*, (SELECT min(e.at) FROM platform.case_event e WHERE e.account_id = c.account_id AND e.case_no = c.case_no
    AND e.entries @> jsonb_build_array(jsonb_build_object('what', 'state', 'state', c.state))) AS since
FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    (SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $2
        AND c.state IN ('confirming', 'cancelling') AND (c.attempt >= $3 OR c.marks ~ '[CX]') LIMIT $4)
    UNION ALL
    (SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at IS NULL AND c.ended_at IS NULL LIMIT $4)
) c
LIMIT $4

-- name: raise_tasks
-- Raises tasks that are not open yet; one that was closed, or whose cause changed, is opened again, unacknowledged.
INSERT INTO platform.task AS t (account_id, case_no, kind, participant, bucket, place, op, why, raised_at, note)
SELECT i.account_id, i.case_no, i.kind, i.participant, i.bucket, i.place, i.op, i.why, $9, i.note
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::smallint[], $7::text[], $8::text[], $10::text[])
    AS i (account_id, case_no, kind, participant, bucket, place, op, why, note)
ORDER BY i.account_id, i.case_no, i.kind, i.participant
ON CONFLICT (account_id, case_no, kind, participant) DO UPDATE
SET place = excluded.place, op = excluded.op, why = excluded.why, raised_at = excluded.raised_at, closed_at = NULL,
    note = excluded.note,
    acknowledged_by = NULL, acknowledged_at = NULL
WHERE t.closed_at IS NOT NULL OR t.why IS DISTINCT FROM excluded.why OR t.op IS DISTINCT FROM excluded.op
RETURNING t.account_id

-- name: close_done
-- Closes tasks that are done: the op was answered, or the case has ended.
WITH open AS MATERIALIZED (
    SELECT o.* FROM unnest($1::smallint[]) AS b (bucket) CROSS JOIN LATERAL (
        SELECT account_id, case_no, kind, participant, place FROM platform.task t
        WHERE t.bucket = b.bucket AND t.closed_at IS NULL AND t.place IS NOT NULL) o
)
UPDATE platform.task t SET closed_at = $2
FROM open o
JOIN platform.cases c ON c.account_id = o.account_id AND c.case_no = o.case_no
    AND c.account_id = ANY (ARRAY(SELECT account_id FROM open))  -- by key, whatever the statistics say
WHERE t.account_id = o.account_id AND t.case_no = o.case_no AND t.kind = o.kind AND t.participant = o.participant
  AND t.account_id = ANY (ARRAY(SELECT account_id FROM open)) AND t.closed_at IS NULL
  AND (c.ended_at IS NOT NULL OR substr(c.marks, o.place + 1, 1) IN ('d', 'z'))
RETURNING t.account_id

-- name: close_decided
-- Closes tasks `undecided` that a later recovery decided: those of these accounts, except of the given cases.
UPDATE platform.task t SET closed_at = $4
WHERE t.account_id = ANY ($1::bigint[]) AND t.kind = 'undecided' AND t.closed_at IS NULL
  AND NOT EXISTS (SELECT FROM unnest($2::bigint[], $3::bigint[]) AS i (account_id, case_no)
      WHERE i.account_id = t.account_id AND i.case_no = t.case_no)

-- name: undecided_of
-- Cases of these accounts that a recovery left undecided, and whose task is still open.
SELECT account_id, case_no FROM platform.task t
WHERE t.account_id = ANY ($1::bigint[]) AND t.kind = 'undecided' AND t.closed_at IS NULL

-- name: open_tasks
-- Open tasks, the oldest first.
SELECT * FROM platform.task WHERE closed_at IS NULL ORDER BY raised_at, account_id, case_no LIMIT $1

-- name: count_open
-- The number of open tasks by kind and participant.
SELECT kind, participant, count(*)::integer AS tasks, min(raised_at) AS oldest_at FROM platform.task WHERE closed_at IS NULL
GROUP BY kind, participant ORDER BY kind, participant

-- name: tasks_of
-- Every task of the given cases, including closed ones.
SELECT t.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.task t ON t.account_id = i.account_id AND t.case_no = i.case_no AND t.account_id = ANY ($1)
ORDER BY t.account_id, t.case_no, t.raised_at

-- name: acknowledge
-- Acknowledges the open tasks of the given cases; the first acknowledgement stays.
UPDATE platform.task t SET acknowledged_by = $3, acknowledged_at = $4
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE t.account_id = i.account_id AND t.account_id = ANY ($1) AND t.case_no = i.case_no AND t.closed_at IS NULL
  AND t.acknowledged_by IS NULL
RETURNING t.account_id, t.case_no

-- name: close_by_hand
-- Closes the tasks `undecided` of the given cases, with a note. The cases themselves do not change.
UPDATE platform.task t SET closed_at = $3, note = $4, acknowledged_by = coalesce(acknowledged_by, $5),
    acknowledged_at = coalesce(acknowledged_at, $3)
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE t.account_id = i.account_id AND t.account_id = ANY ($1) AND t.case_no = i.case_no AND t.closed_at IS NULL
  AND t.kind = 'undecided'
RETURNING t.account_id, t.case_no

-- name: stuck_cases
-- Cases ready or under way without a save since $2, the longest silent first; and live cases that no worker steps any more.
-- Reads only cases due by $1: later ones wait for a proof, or were postponed a moment ago.
SELECT c.*, e.at AS heard_at FROM (
    (SELECT c.* FROM generate_series(0, 255) AS b (bucket) CROSS JOIN LATERAL (
        SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $1
            AND c.state IN ('ready', 'trying', 'confirming', 'cancelling')) c)
    UNION ALL
    (SELECT c.* FROM generate_series(0, 255) AS b (bucket) CROSS JOIN LATERAL (
        SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at IS NULL AND c.ended_at IS NULL) c)
) c CROSS JOIN LATERAL (
    SELECT max(at) AS at FROM platform.case_event e WHERE e.account_id = c.account_id AND e.case_no = c.case_no
) e
WHERE c.due_at IS NULL OR c.marks ~ '[CXey]' OR c.attempt >= $3 OR e.at < $2
ORDER BY e.at, c.account_id LIMIT $4

-- name: confirming_cases
-- Cases past the commit point that have not ended, the longest first, at most $2: those due by $1 (no op waits longer than the
-- longest back-off), and those that no worker steps any more.
SELECT c.* FROM (
    (SELECT c.* FROM generate_series(0, 255) AS b (bucket) CROSS JOIN LATERAL (
        SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $1 AND c.state = 'confirming') c)
    UNION ALL
    (SELECT c.* FROM generate_series(0, 255) AS b (bucket) CROSS JOIN LATERAL (
        SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at IS NULL AND c.ended_at IS NULL
            AND c.state = 'confirming') c)
) c
ORDER BY coalesce(c.deadline, c.created_at), c.account_id LIMIT $2
