-- name: give_consents
-- Inserts consents. A consent is never overwritten: the one it replaces was withdrawn before.
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::bigint[])
        AS i (account_id, consent_id, code, what, case_no)
)
INSERT INTO platform.consent (account_id, consent_id, code, what, case_no, given_at)
SELECT i.account_id, i.consent_id, i.code, array(SELECT jsonb_array_elements_text(i.what::jsonb)), i.case_no, $6::timestamptz
FROM input i

-- name: withdraw_consents
-- Withdraws the standing consents to the given rules and returns them. A withdrawn consent stays withdrawn.
UPDATE platform.consent c SET withdrawn_at = greatest($3::timestamptz, c.given_at)
FROM unnest($1::bigint[], $2::text[]) AS i (account_id, code)
WHERE c.account_id = i.account_id AND c.code = i.code AND c.account_id = ANY ($1) AND c.withdrawn_at IS NULL
RETURNING c.account_id, c.code, c.what, c.case_no, c.given_at, c.withdrawn_at

-- name: lock_live_case
-- The account's live case, locked: nobody steps it while its consent is being withdrawn.
SELECT c.case_no, c.state FROM platform.cases c WHERE c.account_id = $1::bigint AND c.ended_at IS NULL FOR UPDATE
