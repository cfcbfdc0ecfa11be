-- Two locks on one data key (docs/decisions/0004-data-keys.md). `wrapped`: the key under the master key, for living with the name;
-- taking the name back deletes it, at destroy_at the latest. `retained`: the same key under the retention key, for what law keeps; deleted when its
-- retention ends. Destroying is setting one to NULL: the row stays and says when. wrapped_by, retained_by: the mark of the key that
-- made the wrap (store/retention/key_wrapping.py; NULL: made before marks were kept). Rows made before have no `retained`
-- yet: a worker makes it, which has both keys, and no `wrapped` is deleted before.
ALTER TABLE keys.data_key
    DROP CONSTRAINT data_key_wrapped_check,
    ALTER COLUMN wrapped DROP NOT NULL,
    ADD COLUMN wrapped_by bytea CHECK (length(wrapped_by) = 8),
    ADD COLUMN destroyed_at timestamptz,
    ADD COLUMN retained bytea CHECK (length(retained) IN (44, 60)),
    ADD COLUMN retained_by bytea CHECK (length(retained_by) = 8),
    -- What law keeps the retained wrap, from the taking back on: which retention of which pack (keys.retention_basis; NULL: law keeps
    -- nothing), the last day on which it is kept, and the end of that day. ends_at NULL beside a destroy_at: not determined,
    -- kept until an operator has said it (jiebang retention due).
    ADD COLUMN kept_under text CHECK (kept_under <> ''),
    ADD COLUMN last_day date,
    ADD COLUMN retention_ends_at timestamptz,
    ADD COLUMN retention_ended_at timestamptz,
    -- An operator's hold: what a court or authority asked to be kept is not destroyed on its day.
    ADD COLUMN held_at timestamptz,
    ADD CONSTRAINT wrap_is_whole CHECK (length(wrapped) IN (44, 60)),
    ADD CONSTRAINT wrapped_until_destroyed CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL)),
    ADD CONSTRAINT destroyed_when_queued CHECK (destroyed_at IS NULL OR destroy_at IS NOT NULL),
    ADD CONSTRAINT retained_when_destroyed CHECK (wrapped IS NOT NULL OR retained IS NOT NULL OR retention_ended_at IS NOT NULL),
    ADD CONSTRAINT retained_until_ended CHECK (retention_ended_at IS NULL OR retained IS NULL),
    ADD CONSTRAINT ended_after_its_day CHECK (retention_ended_at IS NULL OR retention_ends_at <= retention_ended_at),
    ADD CONSTRAINT last_day_has_an_end CHECK ((last_day IS NULL) = (retention_ends_at IS NULL));
DROP INDEX keys.data_key_destroy;
-- What is queued, what ends, what has no retained wrap yet: each index holds only what is still to be done.
CREATE INDEX data_key_destroy ON keys.data_key (destroy_at) WHERE destroy_at IS NOT NULL AND wrapped IS NOT NULL;
CREATE INDEX data_key_ends ON keys.data_key (retention_ends_at) WHERE retention_ends_at IS NOT NULL AND retained IS NOT NULL;
CREATE INDEX data_key_undetermined ON keys.data_key (account_id)
    WHERE destroy_at IS NOT NULL AND retention_ends_at IS NULL AND retained IS NOT NULL;
CREATE INDEX data_key_unretained ON keys.data_key (account_id, epoch) WHERE retained IS NULL AND wrapped IS NOT NULL;

-- Why law keeps something: a row a retention of a version of policy (`wechat/2 IDENTITY-AML`), as its pack said it.
CREATE TABLE keys.retention_basis (
    basis text PRIMARY KEY CHECK (basis <> ''),
    law_zh text NOT NULL CHECK (law_zh <> ''),
    law_en text NOT NULL CHECK (law_en <> ''),
    purpose_zh text NOT NULL CHECK (purpose_zh <> ''),
    purpose_en text NOT NULL CHECK (purpose_en <> ''),
    time_zone text NOT NULL CHECK (time_zone <> '')
);

-- One row: until when ended cases were read for keys that they destroy.
CREATE TABLE keys.destruction_progress (
    only_one smallint PRIMARY KEY CHECK (only_one = 1),
    ended_until timestamptz NOT NULL
) WITH (fillfactor = 50);
