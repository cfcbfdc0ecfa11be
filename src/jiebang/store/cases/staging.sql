-- name: not_awaited
-- Of cases for which something is staged, those that will never take it up: ended without a commit, or never opened.
-- A committed case may still need it, where the participant was restored to before its Confirm.
SELECT i.account_id, i.case_no
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
LEFT JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no
    AND c.account_id = ANY ($1::bigint[])
WHERE c.state IS NULL OR c.state IN ('rejected', 'withdrawn', 'expired', 'aborted')
