-- name: take_up
-- Counts codes and messages against what their accounts are allowed; an account that would go beyond it returns no row.
UPDATE platform.account a
SET counted_since = CASE WHEN a.counted_since > $4::timestamptz THEN a.counted_since ELSE $5::timestamptz END,
    cases_counted = CASE WHEN a.counted_since > $4 THEN a.cases_counted ELSE 0 END,
    codes_counted = CASE WHEN a.counted_since > $4 THEN a.codes_counted ELSE 0 END + i.codes,
    messages_counted = CASE WHEN a.counted_since > $4 THEN a.messages_counted ELSE 0 END + i.messages
FROM unnest($1::bigint[], $2::integer[], $3::integer[]) AS i (account_id, codes, messages)
WHERE a.account_id = i.account_id AND a.account_id = ANY ($1)
  AND ((a.counted_since > $4) IS NOT TRUE
      OR a.codes_counted + i.codes <= $6::integer AND a.messages_counted + i.messages <= $7::integer)
RETURNING a.account_id

-- name: taken_up
-- What accounts have taken up, and since when.
SELECT a.account_id, a.counted_since, a.cases_counted, a.codes_counted, a.messages_counted, a.case_opened_at
FROM platform.account a WHERE a.account_id = ANY ($1::bigint[])
