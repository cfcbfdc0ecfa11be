-- name: not_awaited
-- Of the given cases, those that will never apply what is staged for them: ended without a commit, or never opened.
-- A committed case may still need it, where the participant was restored to a time before its Confirm.
SELECT i.account_id, i.case_no
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
LEFT JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no
    AND c.account_id = ANY ($1::bigint[])
WHERE c.state IS NULL OR c.state IN ('rejected', 'withdrawn', 'expired', 'aborted')
