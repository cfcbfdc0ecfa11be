-- Confirmation of logins by the person, for `logins.py`.

-- name: lock
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT a.account_id, a.case_op = 'tried' AS tried FROM security.account a
WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR UPDATE

-- name: unconfirmed
-- Abnormal logins that are unconfirmed, or that one of the given remedies confirmed: the answer of a repeat.
SELECT l.account_id, l.login_id, l.confirmed_by FROM security.login l
WHERE l.account_id = ANY ($1::bigint[]) AND l.anomaly IS NOT NULL
  AND (l.confirmed_at IS NULL OR l.confirmed_by = ANY ($2::uuid[]))

-- name: confirm
-- Confirms logins read as unconfirmed under the same lock, and raises facts_version, because unconfirmed ones block.
WITH confirmed AS (
    UPDATE security.login l SET confirmed_at = $4::timestamptz, confirmed_by = i.remedy_id
    FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS i (account_id, login_id, remedy_id)
    WHERE l.account_id = i.account_id AND l.login_id = i.login_id AND l.account_id = ANY ($1::bigint[])
    RETURNING l.account_id
)
UPDATE security.account a SET facts_version = a.facts_version + 1
WHERE a.account_id = ANY ($1::bigint[]) AND a.account_id IN (SELECT c.account_id FROM confirmed c)
