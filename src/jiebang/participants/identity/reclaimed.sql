-- Identities that were taken back: when their keys are to be destroyed, and what law keeps of them.

-- name: reclaimed_of
-- How the identities of accounts stand: their epoch, whether they were taken back, and when their keys are to be destroyed.
SELECT account_id, epoch, state = 'reclaimed' AS reclaimed, key_destroy_at FROM identity.account
WHERE account_id = ANY ($1::bigint[])

-- name: retain_sealed
-- Keeps the sealed bytes of identities that were taken back, once each.
INSERT INTO identity.retained (account_id, sealed_epoch, sealed, retained_at)
SELECT account_id, epoch, sealed, $2 FROM identity.account
WHERE account_id = ANY ($1::bigint[]) AND state = 'reclaimed' AND sealed IS NOT NULL
ON CONFLICT (account_id, sealed_epoch) DO NOTHING

-- name: retained_of
-- The kept sealed bytes of accounts.
SELECT account_id, sealed FROM identity.retained WHERE account_id = ANY ($1::bigint[]) ORDER BY account_id, sealed_epoch

-- name: drop_retained
-- Deletes kept sealed bytes whose key is gone.
DELETE FROM identity.retained r USING unnest($1::bigint[], $2::bigint[]) AS i (account_id, epoch)
WHERE r.account_id = i.account_id AND r.sealed_epoch = i.epoch AND r.account_id = ANY ($1)
