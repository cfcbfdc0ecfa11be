-- name: quota_used
-- How many slots of a year each document has used, not counting the given case's own, and when one was last refused.
SELECT (SELECT count(*) FROM platform.identity_quota q
        WHERE q.document_index = i.document_index AND q.year = $4
          AND (q.account_id <> i.account_id OR q.case_no <> i.case_no)) AS used,
    (SELECT max(r.refused_at) FROM platform.quota_refusal r WHERE r.document_index = i.document_index) AS refused_at
FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS i (document_index, account_id, case_no, place)
ORDER BY i.place

-- name: lock_unmoved
-- Those cases whose revision is still the one that the caller read, locked until the claim is committed. A case that ended
-- meanwhile must not get a slot: nobody would ever release it.
SELECT c.account_id, c.case_no
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS i (account_id, case_no, revision)
JOIN platform.cases c ON c.account_id = i.account_id AND c.account_id = ANY ($1) AND c.case_no = i.case_no
WHERE c.revision = i.revision AND c.ended_at IS NULL
ORDER BY c.account_id, c.case_no
FOR NO KEY UPDATE OF c

-- name: claim_slots
-- Gives the cases the lowest free slots of their documents, in order of the cases; `allowed` is how many slots the document
-- may use this year. A slot that a concurrent claim takes is waited for and not written: `mine` is false then, and the caller
-- retries. A case without a row in the result found no free slot. A slot that a case already holds, of whatever year, is
-- returned again. Slots are written in order, so that two claims cannot deadlock.
-- (`= ANY ($1)` is logically redundant: a condition on the key that the planner uses whatever the statistics say.)
WITH i AS MATERIALIZED (
    SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::integer[]) AS i (document_index, account_id, case_no, allowed)
), held AS MATERIALIZED (
    SELECT q.account_id, q.case_no
    FROM i JOIN platform.identity_quota q
        ON q.document_index = i.document_index AND q.document_index = ANY ($1) AND q.account_id = i.account_id AND q.case_no = i.case_no
), wanted AS MATERIALIZED (
    SELECT i.*, row_number() OVER (PARTITION BY i.document_index ORDER BY i.account_id, i.case_no) AS nth
    FROM i WHERE (i.account_id, i.case_no) NOT IN (SELECT account_id, case_no FROM held)
), used AS MATERIALIZED (
    SELECT d.document_index, d.allowed,
        (SELECT count(*) FROM platform.identity_quota q
            WHERE q.document_index = d.document_index AND q.document_index = ANY ($1) AND q.year = $5) AS slots
    FROM (SELECT document_index, min(allowed) AS allowed FROM wanted GROUP BY document_index) d
), free AS MATERIALIZED (
    SELECT u.document_index, s.slot, u.allowed - u.slots AS left_over,
        row_number() OVER (PARTITION BY u.document_index ORDER BY s.slot) AS nth
    FROM used u CROSS JOIN LATERAL generate_series(1, u.allowed) AS s (slot)
    WHERE NOT EXISTS (SELECT FROM platform.identity_quota q
        WHERE q.document_index = u.document_index AND q.document_index = ANY ($1) AND q.year = $5 AND q.slot = s.slot)
), offered AS MATERIALIZED (
    SELECT w.account_id, w.case_no, f.document_index, f.slot
    FROM wanted w JOIN free f ON f.document_index = w.document_index AND f.nth = w.nth AND f.nth <= f.left_over
), made AS (
    INSERT INTO platform.identity_quota (document_index, year, slot, account_id, case_no, claimed_at)
    SELECT document_index, $5, slot, account_id, case_no, $6 FROM offered ORDER BY document_index, slot
    ON CONFLICT DO NOTHING
    RETURNING account_id, case_no
)
SELECT account_id, case_no, true AS mine FROM held
UNION ALL SELECT account_id, case_no, true FROM made
UNION ALL SELECT account_id, case_no, false FROM offered WHERE (account_id, case_no) NOT IN (SELECT account_id, case_no FROM made)

-- name: release_slots
-- Releases the slots of broken-off cases.
DELETE FROM platform.identity_quota q
USING unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS i (document_index, account_id, case_no)
WHERE q.document_index = i.document_index AND q.document_index = ANY ($1)
  AND q.account_id = i.account_id AND q.case_no = i.case_no

-- name: insert_refusals
-- Submissions refused because the quota was used up.
INSERT INTO platform.quota_refusal (document_index, refused_at, account_id)
SELECT document_index, $3, account_id FROM unnest($1::bytea[], $2::bigint[]) AS i (document_index, account_id)
ON CONFLICT DO NOTHING

-- name: slot_page
-- The next slots in key order: an audit reads all of them page by page, in constant memory.
SELECT document_index, year, slot, account_id, case_no FROM platform.identity_quota
WHERE (document_index, year, slot) > ($1, $2, $3) ORDER BY document_index, year, slot LIMIT $4

-- name: slots_of_cases
-- The slots that the given cases hold.
SELECT q.document_index, q.year, q.slot, q.account_id, q.case_no
FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]) AS i (document_index, account_id, case_no)
JOIN platform.identity_quota q
    ON q.document_index = i.document_index AND q.document_index = ANY ($1) AND q.account_id = i.account_id AND q.case_no = i.case_no
