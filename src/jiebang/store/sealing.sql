-- Data keys of identities that cases bring.

-- name: keep_keys
-- Keeps the wrapped data keys of identities that are not in force yet; one that an earlier attempt left is replaced.
INSERT INTO keys.data_key (account_id, epoch, wrapped, made_at)
SELECT i.account_id, i.epoch, i.wrapped, $4 FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS i (account_id, epoch, wrapped)
ON CONFLICT (account_id, epoch) DO UPDATE SET wrapped = excluded.wrapped, made_at = excluded.made_at
