-- name: under_way_since
-- Is a recovery under way, during which no case is opened? There is at most one.
SELECT begun_at FROM platform.recovery WHERE ended_at IS NULL

-- name: begin_recovery
-- Begins a recovery, or goes on with the one that has not ended: what was restored adds up.
INSERT INTO platform.recovery (recovery_no, restored, begun_by, begun_at)
SELECT coalesce(max(recovery_no), 0) + 1, $1::text[], $2, $3 FROM platform.recovery
ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO UPDATE
SET restored = (SELECT array_agg(DISTINCT name ORDER BY name) FROM unnest(recovery.restored || excluded.restored) AS name)
RETURNING recovery_no, restored, begun_by, begun_at

-- name: end_recovery
-- Ends a recovery: from then on cases are claimed and opened again.
UPDATE platform.recovery SET ended_at = $2, found = $3::text::jsonb WHERE recovery_no = $1 AND ended_at IS NULL

-- name: numbers_of
-- The last case number of each account in a range of them.
SELECT account_id, last_case_no FROM platform.account WHERE account_id > $1 AND account_id <= $2 ORDER BY account_id LIMIT $3

-- name: numbers_among
-- The last case number of each of these accounts.
SELECT account_id, last_case_no FROM platform.account WHERE account_id = ANY ($1::bigint[])

-- name: raise_numbers
-- Raises case numbers, and brings back accounts that the platform lost: a number is never given twice.
INSERT INTO platform.account AS a (account_id, last_case_no, created_at)
SELECT i.account_id, i.last_case_no, $3 FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, last_case_no)
ON CONFLICT (account_id) DO UPDATE SET last_case_no = excluded.last_case_no WHERE a.last_case_no < excluded.last_case_no

-- name: forget_wishes
-- A wish to withdraw that a restore brought back behind the commit point is none: the save of a commit would be refused.
UPDATE platform.cases c SET withdraw_at = NULL
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = i.case_no AND c.revision = i.revision
    AND c.withdraw_at IS NOT NULL

-- name: make_again
-- Makes cases again that the platform lost, each with its number and the beginning of a new timeline. One whose account has
-- another live case, or that is there by now, is left out.
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::timestamptz[], $9::text[], $10::text[], $11::boolean[], $13::text[], $14::bytea[])
        AS i (account_id, case_no, bucket, kind, state, plan, marks, due_at, reason, versions, ended, entries, digest)
), inserted AS (
    INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, versions, created_at, due_at, reason,
        ended_at, head)
    SELECT account_id, case_no, bucket, kind, state, plan, marks, versions::bigint[], $12, due_at, reason,
        CASE WHEN ended THEN $12::timestamptz END,
        sha256(sha256(convert_to(E'jiebang-timeline-1\n' || account_id || E'\n' || case_no, 'UTF8')) || digest)
    FROM input ORDER BY account_id, case_no
    ON CONFLICT DO NOTHING
    RETURNING account_id, case_no, head
), told AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, 1, $12, i.entries::jsonb, n.head FROM inserted n JOIN input i USING (account_id, case_no)
)
SELECT account_id, case_no FROM inserted
