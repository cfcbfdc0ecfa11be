-- made_by: the request that logged in, so that a repeat does not do it twice (NULL: it came otherwise).
ALTER TABLE security.login ADD COLUMN made_by uuid;
CREATE UNIQUE INDEX login_made_by ON security.login (account_id, made_by) WHERE made_by IS NOT NULL;

-- The code that an account's next login waits for. nonce: from which the sender derives the code, which stands nowhere.
-- Outlives a revoke.
CREATE TABLE security.login_code (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    nonce bytea NOT NULL CHECK (length(nonce) = 16),
    sent_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    tries_left smallint NOT NULL CHECK (tries_left >= 0),
    CONSTRAINT expires_after_sent CHECK (expires_at > sent_at)
) WITH (fillfactor = 80);
