-- name: insert_cases
-- Gives each account its next case number and inserts the case with its first timeline row, in one statement. An account that
-- has a live case, or is unknown, returns no row. The unique index decides a race that the NOT EXISTS did not see; the number
-- given then is lost, never reused. Nor does an account return one whose last case is too near or that has had all that it is
-- allowed of late (store/cases/allowances.py): counted in the row that gives the number, so no race gets past it. No number is given during a recovery, which looks for the last one. The number is part of
-- the first head (saga/chain.py).
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::bytea[],
            $12::boolean[], $13::integer[], $14::integer[])
        AS i (account_id, bucket, kind, plan, marks, due_at, device_id, document_index, by_service, codes, messages)
), numbered AS (
    UPDATE platform.account a SET last_case_no = a.last_case_no + 1, case_opened_at = $9,
        counted_since = CASE WHEN a.counted_since > $15::timestamptz THEN a.counted_since ELSE $9 END,
        cases_counted = CASE WHEN a.counted_since > $15 THEN a.cases_counted ELSE 0 END + 1,
        codes_counted = CASE WHEN a.counted_since > $15 THEN a.codes_counted ELSE 0 END + i.codes,
        messages_counted = CASE WHEN a.counted_since > $15 THEN a.messages_counted ELSE 0 END + i.messages
    FROM input i
    WHERE a.account_id = i.account_id AND a.account_id = ANY ($1)
      AND ((a.counted_since > $15) IS NOT TRUE OR a.cases_counted < $17::integer
          AND (a.case_opened_at + $16::interval * (a.cases_counted - 1) > $9) IS NOT TRUE
          AND a.codes_counted + i.codes <= $18::integer AND a.messages_counted + i.messages <= $19::integer)
      AND NOT EXISTS (SELECT FROM platform.cases c
          WHERE c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.ended_at IS NULL)
      AND NOT EXISTS (SELECT FROM platform.recovery WHERE ended_at IS NULL)
    RETURNING a.account_id, a.last_case_no
), inserted AS (
    INSERT INTO platform.cases (account_id, case_no, bucket, kind, state, plan, marks, created_at, due_at, device_id,
        document_index, head, by_service)
    SELECT i.account_id, n.last_case_no, i.bucket, i.kind, 'open', i.plan, i.marks, $9, i.due_at, i.device_id,
        i.document_index,
        sha256(sha256(convert_to(E'jiebang-timeline-1\n' || i.account_id || E'\n' || n.last_case_no, 'UTF8')) || $11::bytea),
        i.by_service
    FROM numbered n JOIN input i USING (account_id)
    ON CONFLICT (account_id) WHERE ended_at IS NULL DO NOTHING
    RETURNING *
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT account_id, case_no, 1, $9, $10::text::jsonb, head FROM inserted
)
SELECT * FROM inserted

-- name: set_documents
-- The documents that open cases bring: from now on these are the ones whose quota they use.
UPDATE platform.cases c SET document_index = i.document_index
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS i (account_id, case_no, document_index)
WHERE c.account_id = i.account_id AND c.account_id = ANY ($1::bigint[]) AND c.case_no = i.case_no AND c.state = 'open'
    AND c.withdraw_at IS NULL
RETURNING c.account_id, c.case_no

-- name: load_cases
-- The cases of the given keys.
SELECT c.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])

-- name: live_cases
-- The live case of each of the given accounts, where it has one.
SELECT c.* FROM unnest($1::bigint[]) AS i (account_id)
JOIN platform.cases c ON c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.ended_at IS NULL

-- name: due_cases
-- What a worker reads: due cases of its buckets, up to $4 of each, the oldest first, except those of the accounts $5 that it is
-- driving already (as a subquery, which is hashed: an array would be searched linearly for each row). Reading claims nothing;
-- the guard of the save decides between workers.
SELECT c.* FROM unnest($1::smallint[]) AS b (bucket)
CROSS JOIN LATERAL (
    SELECT * FROM platform.cases c WHERE c.bucket = b.bucket AND c.due_at <= $2
        AND coalesce(c.rests_until, c.due_at) <= $2 AND c.account_id NOT IN (SELECT unnest($5::bigint[]))
    ORDER BY c.due_at LIMIT $4
) c
ORDER BY c.due_at
LIMIT $3

-- name: save_cases
-- The guarded save: it overwrites only the revision just before its own, and refuses the commit point while the row carries a
-- wish to withdraw. Timeline row and message to the person are written in the same statement. The new head extends the one in
-- the row; however late a save comes, no case ends at a time whose cases are being sealed (platform.seal_floor). Cases that took the same step are a group
-- (g), whose common columns and entries are sent and parsed once. A message takes its id from the head, which is unique to the
-- save. A case that is not being retried (attempt 0) keeps its place in the index of due cases.
WITH g AS MATERIALIZED (
    SELECT g.group_no, revision, state, marks, attempt, due_at, deadline, reason, ended, entries::jsonb AS entries, template, digest
    FROM unnest($6::integer[], $7::integer[], $8::text[], $9::text[], $10::integer[], $11::timestamptz[], $12::timestamptz[],
            $13::text[], $14::boolean[], $15::text[], $16::text[], $17::bytea[])
        AS g (group_no, revision, state, marks, attempt, due_at, deadline, reason, ended, entries, template, digest)
), input AS (
    SELECT i.account_id, i.case_no, i.versions, i.wallet_version, g.*
    FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::text[], $5::bigint[])
        AS i (account_id, case_no, group_no, versions, wallet_version)
    JOIN g ON g.group_no = coalesce(i.group_no, 0)
), saved AS (
    UPDATE platform.cases c
    SET revision = i.revision, state = i.state, marks = i.marks,
        versions = coalesce(i.versions::bigint[], c.versions), wallet_version = coalesce(i.wallet_version, c.wallet_version),
        attempt = i.attempt, deadline = i.deadline,
        due_at = CASE WHEN i.attempt = 0 AND c.due_at <= i.due_at THEN c.due_at ELSE i.due_at END, rests_until = i.due_at,
        reason = i.reason, head = sha256(c.head || i.digest),
        ended_at = CASE WHEN i.ended THEN greatest($18::timestamptz, (SELECT f.until + interval '1 microsecond'
            FROM platform.seal_floor f WHERE f.only_one = 1)) END
    FROM input i
    WHERE c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
      AND c.revision = i.revision - 1
      AND NOT (i.state = 'confirming' AND c.withdraw_at IS NOT NULL)
    RETURNING c.account_id, c.case_no, c.revision, c.withdraw_at, c.bucket, c.head, i.group_no
), timeline AS (
    INSERT INTO platform.case_event (account_id, case_no, revision, at, entries, head)
    SELECT s.account_id, s.case_no, s.revision, $18, g.entries, s.head FROM saved s JOIN g USING (group_no)
), message AS (
    INSERT INTO platform.outbox (account_id, message_id, bucket, case_no, template, params, created_at, due_at)
    SELECT s.account_id, encode(substring(s.head FOR 16), 'hex')::uuid, s.bucket, s.case_no, g.template, '{}', $18, $18
    FROM saved s JOIN g USING (group_no) WHERE g.template IS NOT NULL
)
-- One row: how many cases were saved; which, unless all were; and those with a wish to withdraw, with its time.
SELECT count(*) AS saved,
    CASE WHEN count(*) < cardinality($1::bigint[]) THEN array_agg(account_id) END AS accounts,
    CASE WHEN count(*) < cardinality($1::bigint[]) THEN array_agg(case_no) END AS case_nos,
    array_agg(account_id) FILTER (WHERE withdraw_at IS NOT NULL) AS withdrawing,
    array_agg(case_no) FILTER (WHERE withdraw_at IS NOT NULL) AS withdrawing_no,
    array_agg(withdraw_at) FILTER (WHERE withdraw_at IS NOT NULL) AS withdrawn_at
FROM saved

-- name: put_off_cases
-- Postpones cases that could not be stepped, so that they are not read again and again before those that can.
UPDATE platform.cases c SET due_at = CASE WHEN c.due_at IS NOT NULL THEN $3::timestamptz END, rests_until = NULL
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])

-- name: wish_withdraw
-- Records the wish to withdraw, which the next guarded step takes up. Parked cases keep their empty due time.
UPDATE platform.cases c
SET withdraw_at = coalesce(c.withdraw_at, $3), due_at = CASE WHEN c.state = 'cancelling' THEN c.due_at ELSE $3 END,
    rests_until = CASE WHEN c.state = 'cancelling' THEN c.rests_until END
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
WHERE c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[]) AND c.state = ANY ($4::text[])
RETURNING c.account_id, c.case_no

-- name: account_page
-- The next accounts in key order: an audit reads all of them page by page, in constant memory.
SELECT account_id FROM platform.account WHERE account_id > $1 ORDER BY account_id LIMIT $2

-- name: cases_of_accounts
-- Every case of the given accounts, including ended ones.
SELECT c.* FROM platform.cases c WHERE c.account_id = ANY ($1::bigint[])
