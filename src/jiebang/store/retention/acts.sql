-- Acts on what law keeps. A row an act of an operator.

-- name: record_act
-- Records an act before it is done.
INSERT INTO platform.retention_act (account_id, act_id, act, purpose, done_by, at) VALUES ($1, $2, $3, $4, $5, $6)

-- name: list_acts
-- The newest acts, since a time.
SELECT account_id, act, purpose, done_by, at FROM platform.retention_act WHERE at >= $1 ORDER BY at DESC, act_id LIMIT $2
