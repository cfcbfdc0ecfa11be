-- name: begin_remedies
-- Written before the participant is called; a repeat finds its own row.
INSERT INTO platform.remedy (account_id, remedy_id, code, action, begun_at)
SELECT i.account_id, i.remedy_id, i.code, i.action, $5::timestamptz
FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[]) AS i (account_id, remedy_id, code, action)
ON CONFLICT (account_id, remedy_id) DO NOTHING

-- name: finish_remedies
-- Records outcomes; the first one recorded stays.
UPDATE platform.remedy r SET done_at = $4::timestamptz, outcome = i.outcome::jsonb
FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS i (account_id, remedy_id, outcome)
WHERE r.account_id = i.account_id AND r.remedy_id = i.remedy_id AND r.account_id = ANY ($1) AND r.done_at IS NULL

-- name: drop_remedies
-- Deletes remedies that were refused before anything was done.
DELETE FROM platform.remedy r
USING unnest($1::bigint[], $2::uuid[]) AS i (account_id, remedy_id)
WHERE r.account_id = i.account_id AND r.remedy_id = i.remedy_id AND r.account_id = ANY ($1) AND r.done_at IS NULL

-- name: remedies_of
-- Every remedy of the given accounts, the oldest first.
SELECT r.account_id, r.remedy_id, r.code, r.action, r.begun_at, r.done_at, r.outcome::text AS outcome
FROM platform.remedy r WHERE r.account_id = ANY ($1::bigint[])
ORDER BY r.account_id, r.begun_at, r.remedy_id

-- name: lock_accounts
-- Requests and attempts of one account are serialised, so that parallel ones cannot share a try.
SELECT a.account_id FROM platform.account a WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR NO KEY UPDATE

-- name: insert_step_ups
-- A new step-up replaces the account's earlier one under the same rule.
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::timestamptz[],
            $10::boolean[])
        AS i (account_id, remedy_id, code, kind, what, nonce, device_id, expires_at, by_service)
), replaced AS (
    UPDATE platform.step_up s SET ended_at = $9::timestamptz
    FROM input i
    WHERE s.account_id = i.account_id AND s.account_id = ANY ($1) AND s.code = i.code AND s.used_at IS NULL AND s.ended_at IS NULL
)
INSERT INTO platform.step_up (account_id, remedy_id, code, kind, what, nonce, device_id, created_at, expires_at, by_service)
SELECT i.account_id, i.remedy_id, i.code, i.kind, array(SELECT jsonb_array_elements_text(i.what::jsonb)), i.nonce, i.device_id,
    $9::timestamptz, i.expires_at, i.by_service
FROM input i

-- name: step_ups_of
-- Step-ups of the given accounts under one rule that were requested since a time, the newest first.
SELECT s.account_id, s.remedy_id, s.code, s.kind, s.what, s.nonce, s.device_id, s.wrong, s.created_at, s.expires_at,
    s.used_at, s.ended_at, s.by_service
FROM platform.step_up s
WHERE s.account_id = ANY ($1::bigint[]) AND s.code = $2::text AND s.created_at > $3::timestamptz
ORDER BY s.account_id, s.created_at DESC, s.remedy_id

-- name: save_step_ups
-- Writes back step-ups that were verified while their account was locked.
UPDATE platform.step_up s SET wrong = i.wrong, used_at = i.used_at
FROM unnest($1::bigint[], $2::uuid[], $3::smallint[], $4::timestamptz[]) AS i (account_id, remedy_id, wrong, used_at)
WHERE s.account_id = i.account_id AND s.remedy_id = i.remedy_id AND s.account_id = ANY ($1)
