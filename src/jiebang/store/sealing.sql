-- Data keys of identities that cases bring.

-- name: keep_keys
-- Keeps the data keys of identities that are not in force yet, under both locks; one that an earlier attempt left is replaced.
INSERT INTO keys.data_key AS k (account_id, epoch, wrapped, wrapped_by, retained, retained_by, made_at)
SELECT i.account_id, i.epoch, i.wrapped, i.wrapped_by, i.retained, i.retained_by, $7
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[])
    AS i (account_id, epoch, wrapped, wrapped_by, retained, retained_by)
ON CONFLICT (account_id, epoch) DO UPDATE SET wrapped = excluded.wrapped, wrapped_by = excluded.wrapped_by,
    retained = excluded.retained, retained_by = excluded.retained_by, made_at = excluded.made_at
    WHERE k.destroy_at IS NULL
