-- name: read_state
-- Every process reads this several times a second.
SELECT revision, activation_no, pack, in_force_since, before, shadow, shadow_by, shadow_since
FROM platform.policy_state WHERE only_one = 1

-- name: lock_state
-- The same, locked until the transaction ends: changes of policy are serialised.
SELECT revision, activation_no, pack, in_force_since, before, shadow, shadow_by, shadow_since
FROM platform.policy_state WHERE only_one = 1 FOR UPDATE

-- name: first_state
-- The first activation of an installation; a second process inserts nothing.
INSERT INTO platform.policy_state (only_one, revision, activation_no, pack, in_force_since, before)
VALUES (1, 1, 1, $1, $2, $1)
ON CONFLICT DO NOTHING
RETURNING true

-- name: first_activation
-- The row of the first activation, which nobody had to approve: there was no policy before it.
INSERT INTO platform.policy_activation (activation_no, pack, action, proposed_by, proposed_at, in_force_since)
VALUES (1, $1, 'install', $2, $3, $3)

-- name: in_force
-- Puts another version in force at a later time, by which all processes have read it.
UPDATE platform.policy_state
SET revision = revision + 1, activation_no = $1, pack = $2, in_force_since = $3, before = pack
WHERE only_one = 1

-- name: touch_state
-- Raises the revision, so that every process reads the packs again.
UPDATE platform.policy_state SET revision = revision + 1 WHERE only_one = 1

-- name: set_shadow
-- Which version runs in shadow; NULL: none.
UPDATE platform.policy_state SET revision = revision + 1, shadow = $1, shadow_by = $2, shadow_since = $3 WHERE only_one = 1

-- name: insert_packs
-- Adds versions; an existing one stays as it is.
INSERT INTO platform.policy_pack (pack, name, version, text, sha256, added_by, added_at)
SELECT name || '/' || version, name, version, text, sha256(convert_to(text, 'UTF8')), $4, $5
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS i (name, version, text)
ON CONFLICT DO NOTHING
RETURNING pack

-- name: load_packs
-- Every version except those that the caller knows.
SELECT pack, name, version, text, sha256, added_by, added_at FROM platform.policy_pack
WHERE pack <> ALL ($1::text[]) ORDER BY name, version

-- name: next_activation
-- The number of the next activation; under the lock of the state, so that no other process takes it.
SELECT coalesce(max(activation_no), 0) + 1 FROM platform.policy_activation

-- name: open_proposal
-- The proposal of a version that waits for a second person's approval.
SELECT * FROM platform.policy_activation WHERE pack = $1 AND in_force_since IS NULL AND lapsed_at IS NULL

-- name: load_activation
-- One activation.
SELECT * FROM platform.policy_activation WHERE activation_no = $1

-- name: propose
-- One person's proposal to activate a version.
INSERT INTO platform.policy_activation (activation_no, pack, action, proposed_by, proposed_at) VALUES ($1, $2, 'activate', $3, $4)

-- name: approve
-- A second person's approval, which puts the version in force.
UPDATE platform.policy_activation
SET approved_by = $2, approved_at = $3, in_force_since = $4, replaces = $5
WHERE activation_no = $1

-- name: roll_back
-- Returns to the version of an earlier activation: one person is enough, because two agreed to it before.
INSERT INTO platform.policy_activation (activation_no, pack, action, proposed_by, proposed_at, in_force_since, replaces)
VALUES ($1, $2, 'rollback', $3, $4, $5, $6)

-- name: lapse_proposals
-- Lapses open proposals: they were made against the previous version and must be made again against this one.
UPDATE platform.policy_activation SET lapsed_at = $2
WHERE in_force_since IS NULL AND lapsed_at IS NULL AND activation_no <> $1

-- name: history
-- The last changes of policy, the newest first.
SELECT * FROM platform.policy_activation ORDER BY activation_no DESC LIMIT $1

-- name: forget_shadow
-- A shadow run begins with all counts at zero.
DELETE FROM platform.policy_shadow WHERE shadow = $1

-- name: count_shadow
-- Adds what a process has counted since its last call.
INSERT INTO platform.policy_shadow AS kept (shadow, live, kind, segment, code, checks, in_both, only_live, only_shadow)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
    $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
ON CONFLICT (shadow, live, kind, segment, code) DO UPDATE
SET checks = kept.checks + excluded.checks, in_both = kept.in_both + excluded.in_both,
    only_live = kept.only_live + excluded.only_live, only_shadow = kept.only_shadow + excluded.only_shadow

-- name: read_shadow
-- All counts of one version in shadow.
SELECT shadow, live, kind, segment, code, checks, in_both, only_live, only_shadow
FROM platform.policy_shadow WHERE shadow = $1 ORDER BY live, kind, segment, code
