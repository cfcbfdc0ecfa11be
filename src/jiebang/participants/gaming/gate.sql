-- The gate of gaming: games are started, for `gate.py`.

-- name: lock_players
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT a.account_id, a.suspended FROM gaming.account a
WHERE a.account_id = ANY ($1::bigint[]) ORDER BY a.account_id FOR UPDATE

-- name: games
-- The games that the accounts may play.
SELECT g.account_id, g.game_id FROM gaming.access g WHERE g.account_id = ANY ($1::bigint[]) AND g.withdrawn_at IS NULL

-- name: started
-- The games that the given requests have started: the answer of a repeat.
SELECT s.account_id, s.made_by, s.session_id, s.started_at FROM gaming.play_session s
WHERE s.account_id = ANY ($1::bigint[]) AND s.made_by = ANY ($2::uuid[])

-- name: last_sessions
SELECT a.account_id,
    coalesce((SELECT max(s.session_id) FROM gaming.play_session s WHERE s.account_id = a.account_id), 0) AS last
FROM gaming.account a
WHERE a.account_id = ANY ($1::bigint[])

-- name: start
INSERT INTO gaming.play_session (account_id, session_id, game_id, started_at, made_by)
SELECT i.account_id, i.session_id, i.game_id, $5::timestamptz, i.made_by
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::uuid[]) AS i (account_id, session_id, game_id, made_by)
