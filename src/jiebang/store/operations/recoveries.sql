-- name: under_way_since
-- Since when a recovery, of which there is at most one, has been under way.
SELECT begun_at FROM platform.recovery WHERE ended_at IS NULL

-- name: begin_recovery
-- Begins a recovery, or continues the one that has not ended, adding to what was restored.
INSERT INTO platform.recovery (recovery_no, restored, begun_by, begun_at)
SELECT coalesce(max(recovery_no), 0) + 1, $1::text[], $2, $3 FROM platform.recovery
ON CONFLICT ((ended_at IS NULL)) WHERE ended_at IS NULL DO UPDATE
SET restored = (SELECT array_agg(DISTINCT name ORDER BY name) FROM unnest(recovery.restored || excluded.restored) AS name)
RETURNING recovery_no, restored, begun_by, begun_at

-- name: end_recovery
-- Ends a recovery: from then on cases are claimed and opened again.
UPDATE platform.recovery SET ended_at = $2, found = $3::text::jsonb WHERE recovery_no = $1 AND ended_at IS NULL

-- name: numbers_of
-- The last case number of each account in a range.
SELECT account_id, last_case_no FROM platform.account WHERE account_id > $1 AND account_id <= $2 ORDER BY account_id LIMIT $3

-- name: numbers_among
-- The last case number of each of these accounts.
SELECT account_id, last_case_no FROM platform.account WHERE account_id = ANY ($1::bigint[])

-- name: raise_numbers
-- Raises last case numbers, and inserts accounts that the platform lost: a number is never given twice.
INSERT INTO platform.account AS a (account_id, last_case_no, created_at)
SELECT i.account_id, i.last_case_no, $3 FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, last_case_no)
ON CONFLICT (account_id) DO UPDATE SET last_case_no = excluded.last_case_no WHERE a.last_case_no < excluded.last_case_no

-- name: forget_wishes
-- Deletes wishes to withdraw that a restore brought back although the case has passed its commit point: the guard would refuse
-- to save the commit.
UPDATE platform.cases c SET withdraw_at = NULL
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = i.case_no AND c.revision = i.revision
    AND c.withdraw_at IS NOT NULL

-- name: make_again
-- Inserts cases that the platform lost, each with its number and the first row of a new timeline. A case whose account has
-- another live case, or that exists by now, is left out.
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::timestamptz[], $9::text[], $10::text[], $11::boolean[], $13::text[], $14::bytea[])
        AS i (account_id, case_no, bucket, kind, state, plan, marks, due_at, reason, versions, ended, entries, digest)
), inserted AS (
    INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, versions, created_at, due_at, reason,
        ended_at, head)
    SELECT account_id, case_no, bucket, kind, state, plan, marks, versions::bigint[], $12, due_at, reason,
        CASE WHEN ended THEN greatest($12::timestamptz, (SELECT f.until + interval '1 microsecond'
            FROM platform.seal_floor f WHERE f.only_one = 1)) END,
        sha256(sha256(convert_to(E'jiebang-timeline-1\n' || account_id || E'\n' || case_no, 'UTF8')) || digest)
    FROM input ORDER BY account_id, case_no
    ON CONFLICT DO NOTHING
    RETURNING account_id, case_no, head
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, 1, $12, i.entries::jsonb, n.head FROM inserted n JOIN input i USING (account_id, case_no)
)
SELECT account_id, case_no FROM inserted
