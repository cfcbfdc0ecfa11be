-- The gate of enterprise: calls under API credentials, for `gate.py`.

-- name: live_credentials
-- Those of the given credentials that may call: not revoked, of the account's epoch, and the account has the rights.
SELECT c.account_id, c.credential_id FROM enterprise.api_credential c
JOIN enterprise.account a ON a.account_id = c.account_id AND a.account_id = ANY ($1::bigint[])
WHERE c.account_id = ANY ($1::bigint[]) AND c.credential_id = ANY ($2::bigint[]) AND c.revoked_at IS NULL
  AND c.epoch = a.epoch AND a.api_rights
