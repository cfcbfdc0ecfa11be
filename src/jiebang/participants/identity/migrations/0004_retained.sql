-- What law keeps of a name that was taken back: the sealed bytes as they were, apart, so that an identity bound later does not
-- overwrite them. They open with the data key's retained wrap alone (keys.data_key), and go when that is destroyed.
-- Outlives a revoke.
CREATE TABLE identity.retained (
    account_id bigint NOT NULL CHECK (account_id > 0),
    sealed_epoch bigint NOT NULL CHECK (sealed_epoch > 0),
    sealed bytea NOT NULL,
    retained_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, sealed_epoch)
);
