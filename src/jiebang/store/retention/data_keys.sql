-- The data keys and their two wraps. Every statement takes a page; those that destroy take no more than a thousand keys each.

-- name: keys_of_accounts
-- What stands of the keys of accounts, without the wraps themselves.
SELECT account_id, epoch, made_at, destroy_at, destroyed_at, retained IS NOT NULL AS is_retained, kept_under, last_day,
    retention_ends_at, retention_ended_at, held_at
FROM keys.data_key WHERE account_id = ANY ($1::bigint[]) ORDER BY account_id, epoch

-- name: unretained_keys
-- A page of keys made before there was a second lock, in key order.
SELECT account_id, epoch, wrapped FROM keys.data_key
WHERE retained IS NULL AND wrapped IS NOT NULL AND (account_id, epoch) > ($1, $2)
ORDER BY account_id, epoch LIMIT $3

-- name: retain_keys
-- Puts the second lock on keys that have none.
UPDATE keys.data_key k SET retained = i.retained, retained_by = $4
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS i (account_id, epoch, retained)
WHERE k.account_id = i.account_id AND k.epoch = i.epoch AND k.account_id = ANY ($1)
  AND k.retained IS NULL AND k.wrapped IS NOT NULL

-- name: read_progress
-- Until when ended cases were read for the keys that they destroy.
SELECT ended_until FROM keys.destruction_progress WHERE only_one = 1

-- name: note_progress
-- Notes how far they were read.
INSERT INTO keys.destruction_progress AS p (only_one, ended_until) VALUES (1, $1)
ON CONFLICT (only_one) DO UPDATE SET ended_until = excluded.ended_until WHERE p.ended_until < excluded.ended_until

-- name: add_bases
-- Keeps why law keeps something, once each.
INSERT INTO keys.retention_basis (basis, law_zh, law_en, purpose_zh, purpose_en, time_zone)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
ON CONFLICT (basis) DO NOTHING

-- name: queue_keys
-- Queues the keys of identities that ended, with what law keeps of them. Of an identity that was taken back all keys up to its epoch;
-- of one that was swapped those before, where the new one has its own: whatever raises an epoch without a new key ends none.
UPDATE keys.data_key k
SET destroy_at = coalesce(k.destroy_at, i.destroy_at), kept_under = i.kept_under, last_day = i.last_day,
    retention_ends_at = i.ends_at
FROM unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::timestamptz[], $5::text[], $6::date[], $7::timestamptz[])
    AS i (account_id, epoch, reclaimed, destroy_at, kept_under, last_day, ends_at)
WHERE k.account_id = i.account_id AND k.account_id = ANY ($1) AND k.retention_ends_at IS NULL AND k.retention_ended_at IS NULL
  AND (i.reclaimed AND k.epoch <= i.epoch OR k.epoch < i.epoch AND (k.account_id, i.epoch) IN (
      SELECT n.account_id, n.epoch FROM keys.data_key n WHERE n.account_id = ANY ($1)))

-- name: undetermined_accounts
-- A page of accounts with keys of which it is not determined until when law keeps them.
SELECT account_id FROM keys.data_key
WHERE destroy_at IS NOT NULL AND retention_ends_at IS NULL AND retained IS NOT NULL AND account_id > $1
ORDER BY account_id LIMIT $2

-- name: destroy_keys
-- Destroys queued keys, those first that must go first: from here on their names can be read through the retention key alone. One
-- that has no second lock yet waits for it.
WITH due AS MATERIALIZED (
    SELECT account_id, epoch FROM keys.data_key
    WHERE destroy_at IS NOT NULL AND wrapped IS NOT NULL AND retained IS NOT NULL
    ORDER BY destroy_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE keys.data_key k SET wrapped = NULL, wrapped_by = NULL, destroyed_at = $1
FROM due d
WHERE k.account_id = d.account_id AND k.epoch = d.epoch AND k.account_id = ANY (ARRAY(SELECT account_id FROM due))
RETURNING k.account_id, k.epoch, k.destroy_at

-- name: end_retentions
-- Destroys what law kept until now, unless an operator holds it.
WITH due AS MATERIALIZED (
    SELECT account_id, epoch FROM keys.data_key
    WHERE retention_ends_at <= $1 AND retention_ends_at IS NOT NULL AND retained IS NOT NULL AND wrapped IS NULL AND held_at IS NULL
    ORDER BY retention_ends_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE keys.data_key k SET retained = NULL, retained_by = NULL, retention_ended_at = $1
FROM due d
WHERE k.account_id = d.account_id AND k.epoch = d.epoch AND k.account_id = ANY (ARRAY(SELECT account_id FROM due))
RETURNING k.account_id, k.epoch

-- name: overdue_keys
-- How many keys were to be destroyed before a time and were not, and since when the first is.
SELECT count(*)::integer AS keys, min(destroy_at) AS oldest_at FROM keys.data_key
WHERE destroy_at < $1 AND destroy_at IS NOT NULL AND wrapped IS NOT NULL

-- name: overdue_retentions
-- How many retentions ended before a time and are still there, with none that an operator holds.
SELECT count(*)::integer AS keys, min(retention_ends_at) AS oldest_at FROM keys.data_key
WHERE retention_ends_at < $1 AND retention_ends_at IS NOT NULL AND retained IS NOT NULL AND held_at IS NULL

-- name: retained_wraps
-- What law keeps of the keys of accounts, of those that are destroyed otherwise.
SELECT account_id, epoch, retained FROM keys.data_key
WHERE account_id = ANY ($1::bigint[]) AND retained IS NOT NULL AND destroyed_at IS NOT NULL ORDER BY account_id, epoch

-- name: hold_keys
-- Holds what law keeps of accounts beyond its day, or ($2 NULL) lets go of it again.
UPDATE keys.data_key SET held_at = $2::timestamptz
WHERE account_id = ANY ($1::bigint[]) AND retained IS NOT NULL AND destroy_at IS NOT NULL AND (held_at IS NULL) = ($2::timestamptz IS NOT NULL)
RETURNING account_id, epoch

-- name: ending_by_day
-- What ends until a time, by the day and by why it is kept; of that, how much an operator holds.
SELECT last_day, kept_under, count(*)::integer AS keys, (count(*) FILTER (WHERE held_at IS NOT NULL))::integer AS held
FROM keys.data_key WHERE retention_ends_at <= $1 AND retention_ends_at IS NOT NULL AND retained IS NOT NULL
GROUP BY last_day, kept_under ORDER BY last_day, kept_under

-- name: count_undetermined
-- How many keys there are of which it is not determined until when law keeps them.
SELECT count(*)::integer FROM keys.data_key
WHERE destroy_at IS NOT NULL AND retention_ends_at IS NULL AND retained IS NOT NULL

-- name: kept_by_basis
-- All that law keeps, by why: how much, from which last day to which, and how much of it is held.
SELECT kept_under AS basis, count(*)::integer AS keys, min(last_day) AS first_day, max(last_day) AS last_day,
    (count(*) FILTER (WHERE held_at IS NOT NULL))::integer AS held
FROM keys.data_key WHERE retention_ends_at IS NOT NULL AND retained IS NOT NULL
GROUP BY kept_under ORDER BY kept_under

-- name: list_bases
-- Why law keeps something, by name.
SELECT basis, law_zh, law_en, purpose_zh, purpose_en, time_zone FROM keys.retention_basis ORDER BY basis

-- name: wraps_of_other_masters
-- A page of master's wraps that another key than the one of this mark made, in key order.
SELECT account_id, epoch, wrapped FROM keys.data_key
WHERE (account_id, epoch) > ($1, $2) AND wrapped IS NOT NULL AND wrapped_by IS DISTINCT FROM $3::bytea
ORDER BY account_id, epoch LIMIT $4

-- name: replace_master_wraps
-- Puts new master's wraps in the place of old ones; one that was destroyed meanwhile stays destroyed.
UPDATE keys.data_key k SET wrapped = i.wrap, wrapped_by = $4
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS i (account_id, epoch, wrap)
WHERE k.account_id = i.account_id AND k.epoch = i.epoch AND k.account_id = ANY ($1) AND k.wrapped IS NOT NULL

-- name: wraps_of_other_retentions
-- A page of the retention key's wraps that another key than the one of this mark made, in key order.
SELECT account_id, epoch, retained FROM keys.data_key
WHERE (account_id, epoch) > ($1, $2) AND retained IS NOT NULL AND retained_by IS DISTINCT FROM $3::bytea
ORDER BY account_id, epoch LIMIT $4

-- name: replace_retention_wraps
-- Puts new wraps of the retention key in the place of old ones; one that was destroyed meanwhile stays destroyed.
UPDATE keys.data_key k SET retained = i.wrap, retained_by = $4
FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS i (account_id, epoch, wrap)
WHERE k.account_id = i.account_id AND k.epoch = i.epoch AND k.account_id = ANY ($1) AND k.retained IS NOT NULL
