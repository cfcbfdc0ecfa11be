-- name: next_correction
-- The number of the next correction; under the lock of the policy's state, so that no other process takes it.
SELECT coalesce(max(correction_no), 0) + 1 FROM platform.plan_correction

-- name: lapse_correction
-- Lapses the open proposal for an effect: another takes its place.
UPDATE platform.plan_correction SET lapsed_at = $5
WHERE pack = $1 AND kind = $2 AND participant = $3 AND effect = $4 AND approved_at IS NULL AND lapsed_at IS NULL

-- name: propose_correction
-- One person's proposal.
INSERT INTO platform.plan_correction
    (correction_no, pack, kind, participant, effect, value, was, why, proposed_by, proposed_at)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, $10)

-- name: open_correction
-- A proposal that waits for a second person.
SELECT * FROM platform.plan_correction WHERE correction_no = $1 AND approved_at IS NULL AND lapsed_at IS NULL

-- name: approve_correction
-- A second person's approval.
UPDATE platform.plan_correction SET approved_by = $2, approved_at = $3 WHERE correction_no = $1

-- name: correction_history
-- The latest corrections, also those that wait or lapsed, the newest first.
SELECT * FROM platform.plan_correction ORDER BY correction_no DESC LIMIT $1

-- name: approved_corrections
-- Every correction in force, the oldest first: of two for one effect the later one counts.
SELECT * FROM platform.plan_correction WHERE approved_at IS NOT NULL ORDER BY approved_at, correction_no
