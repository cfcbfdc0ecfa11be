-- name: suspects
-- Cases past their decision that a person may have to look at: something is parked, or was sent again `$3` times and more;
-- and live ones that nobody looks at any more. Only what is due soon can be silent: no op waits longer than the back-off.
-- since: when the case came into its state.
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
-- Raises what is not open yet; a task that was closed and is right again opens anew, unacknowledged.
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
-- Closes what is done: the op was answered, or the case has ended.
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
-- Closes what a recovery could not decide before and decided now: of these accounts, all but the cases named.
UPDATE platform.task t SET closed_at = $4
WHERE t.account_id = ANY ($1::bigint[]) AND t.kind = 'undecided' AND t.closed_at IS NULL
  AND NOT EXISTS (SELECT FROM unnest($2::bigint[], $3::bigint[]) AS i (account_id, case_no)
      WHERE i.account_id = t.account_id AND i.case_no = t.case_no)

-- name: undecided_of
-- What a recovery left to people of these accounts and is still open.
SELECT account_id, case_no FROM platform.task t
WHERE t.account_id = ANY ($1::bigint[]) AND t.kind = 'undecided' AND t.closed_at IS NULL

-- name: open_tasks
-- What is open, the oldest first.
SELECT * FROM platform.task WHERE closed_at IS NULL ORDER BY raised_at, account_id, case_no LIMIT $1

-- name: count_open
-- How much is open, by kind and participant.
SELECT kind, participant, count(*)::integer AS tasks, min(raised_at) AS oldest_at FROM platform.task WHERE closed_at IS NULL
GROUP BY kind, participant ORDER BY kind, participant

-- name: tasks_of
-- Every task of the given cases, closed ones too.
SELECT t.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.task t ON t.account_id = i.account_id AND t.case_no = i.case_no AND t.account_id = ANY ($1)
ORDER BY t.account_id, t.case_no, t.raised_at

-- name: acknowledge
-- Somebody looks after the open tasks of the given cases; who did so first stays.
UPDATE platform.task t SET acknowledged_by = $3, acknowledged_at = $4
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE t.account_id = i.account_id AND t.account_id = ANY ($1) AND t.case_no = i.case_no AND t.closed_at IS NULL
  AND t.acknowledged_by IS NULL
RETURNING t.account_id, t.case_no

-- name: close_by_hand
-- Closes the undecided tasks of the given cases with what was found out. Nothing of the cases changes by it.
UPDATE platform.task t SET closed_at = $3, note = $4, acknowledged_by = coalesce(acknowledged_by, $5),
    acknowledged_at = coalesce(acknowledged_at, $3)
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE t.account_id = i.account_id AND t.account_id = ANY ($1) AND t.case_no = i.case_no AND t.closed_at IS NULL
  AND t.kind = 'undecided'
RETURNING t.account_id, t.case_no

-- name: stuck_cases
-- Cases under way, or ready, of which nothing was heard since $2, the quietest first; and live ones that nobody looks at any
-- more. Reads what is due by $1 alone: later is only who waits for a proof, or was put off on purpose a moment ago.
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
