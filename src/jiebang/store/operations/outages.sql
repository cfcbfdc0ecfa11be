-- name: outage_history
-- Outages: current ones first, then the latest first.
SELECT participant, out_since, reason, out_by, back_at, back_by FROM platform.participant_outage
ORDER BY (back_at IS NULL) DESC, out_since DESC, participant LIMIT $1

-- name: take_out
-- Takes participants out of service; one that is out already keeps its row.
INSERT INTO platform.participant_outage (participant, out_since, reason, out_by)
SELECT p, $2, $3, $4 FROM unnest($1::text[]) AS p
ON CONFLICT (participant) WHERE back_at IS NULL DO NOTHING

-- name: take_back
-- Puts participants back into service.
UPDATE platform.participant_outage SET back_at = greatest($2::timestamptz, out_since), back_by = $3
WHERE participant = ANY ($1::text[]) AND back_at IS NULL
