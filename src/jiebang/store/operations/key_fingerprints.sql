-- name: recorded
-- The fingerprint of each key as it is now.
SELECT DISTINCT ON (name) name, fingerprint FROM platform.key_fingerprint ORDER BY name, recorded_at DESC

-- name: holds_people
-- Whether anybody's data may be sealed under keys that were made before.
SELECT EXISTS (SELECT FROM platform.account WHERE account_id > 0)

-- name: record
-- Records fingerprints of keys.
INSERT INTO platform.key_fingerprint (name, recorded_at, fingerprint)
SELECT k.name, $3, k.fingerprint FROM unnest($1::text[], $2::bytea[]) AS k (name, fingerprint)
