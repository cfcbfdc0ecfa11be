-- name: done_of_accounts
-- The cases of the given accounts that are done, in key order.
SELECT c.account_id, c.case_no, c.kind, c.plan, c.created_at, c.ended_at, c.versions
FROM platform.cases c
WHERE c.account_id = ANY ($1::bigint[]) AND c.state = 'done'
ORDER BY c.account_id, c.case_no

-- name: notices
-- The last notice of each template about each of the given cases: when it was queued, and when it was delivered.
SELECT i.account_id, i.case_no, t.template, o.created_at, o.delivered_at
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
CROSS JOIN unnest($3::text[]) AS t (template)
LEFT JOIN LATERAL (
    SELECT o.created_at, o.delivered_at FROM platform.outbox o
    WHERE o.account_id = i.account_id AND o.account_id = ANY ($1::bigint[]) AND o.case_no = i.case_no
        AND o.template = t.template
    ORDER BY o.created_at DESC LIMIT 1
) o ON true
