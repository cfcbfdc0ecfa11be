-- What cases brought, until their Confirm takes it up or their Cancel drops it. Outlives a revoke, which brings nothing.
-- `given` holds a new identity sealed under its own data key, its blind index, and what of it stands in clear once it is bound.
CREATE TABLE identity.staged (
    account_id bigint NOT NULL CHECK (account_id > 0),
    case_no bigint NOT NULL CHECK (case_no > 0),
    operation text NOT NULL,
    given jsonb NOT NULL CHECK (jsonb_typeof(given) = 'object'),
    staged_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, case_no)
);

-- former_sealed, former_epochs: the identities that another one took the place of, as they were sealed, each with the epoch of its
-- data key; the oldest first. Law keeps them; they open with those keys alone. former_key_destroy_at: when the key of the newest of
-- them is to be destroyed at the latest (NULL: there is none), as its Confirm saw it.
ALTER TABLE identity.account
    ADD COLUMN former_sealed bytea[] NOT NULL DEFAULT '{}',
    ADD COLUMN former_epochs bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN former_key_destroy_at timestamptz,
    ADD CONSTRAINT former_has_its_epoch CHECK (cardinality(former_sealed) = cardinality(former_epochs));
