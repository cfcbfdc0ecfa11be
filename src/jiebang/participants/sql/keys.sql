-- The data keys: in a database of their own, in no backup and no WAL archive (docs/decisions/0004-data-keys.md).
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA keys;

-- One data key an account and identity, wrapped by the master key. epoch: the epoch of the identity it seals.
-- destroy_at: queued for destruction at that time (NULL: in use). A destroyed key's row is gone.
CREATE TABLE keys.data_key (
    account_id bigint NOT NULL CHECK (account_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    wrapped bytea NOT NULL CHECK (length(wrapped) = 60),
    made_at timestamptz NOT NULL,
    destroy_at timestamptz,
    PRIMARY KEY (account_id, epoch)
);
CREATE INDEX data_key_destroy ON keys.data_key (destroy_at) WHERE destroy_at IS NOT NULL;
