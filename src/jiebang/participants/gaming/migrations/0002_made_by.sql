-- made_by: the request that started the game, so that a repeat does not start two (NULL: it came otherwise).
ALTER TABLE gaming.play_session ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX play_session_made_by ON gaming.play_session (account_id, made_by) WHERE made_by IS NOT NULL;
