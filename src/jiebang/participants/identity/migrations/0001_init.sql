-- Participant identity: the identity record. The same schema stands in both data centres (identity_shenzhen, identity_guiyang).
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA identity;

-- The identity bound to an account, with the fence of the saga.
-- sealed: name and document number, AES-GCM under the person's own data key. document_index: keyed HMAC-SHA256 of
-- document type and number, so that "the same document" can be found without reading it. region: administrative
-- division code of a resident, ISO 3166 alpha-3 of a foreigner. changed_at: when it was last bound, swapped or reclaimed.
-- key_destroy_at: when the data key of a reclaimed identity is to be destroyed; set by Confirm in its one statement, and
-- passed on to the key store by a job.
-- A reclaimed identity keeps only the sealed bytes, unreadable once the data key is destroyed.
CREATE TABLE identity.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    state text NOT NULL DEFAULT 'none' CHECK (state IN ('active', 'pending_reclaim', 'reclaimed', 'none')),
    level smallint NOT NULL DEFAULT 0 CHECK (level BETWEEN 0 AND 3),
    document_type text CHECK (document_type IN ('resident_id', 'residence_permit', 'hk_macao_permit', 'taiwan_permit',
        'foreign_permanent_residence', 'passport')),
    sealed bytea,
    document_index bytea CHECK (length(document_index) = 32),
    birth_date date,
    region text,
    changed_at timestamptz,
    key_destroy_at timestamptz,
    CONSTRAINT bound_is_whole CHECK (CASE
        WHEN state IN ('active', 'pending_reclaim') THEN level > 0 AND document_type IS NOT NULL AND sealed IS NOT NULL
            AND document_index IS NOT NULL AND birth_date IS NOT NULL AND region IS NOT NULL AND changed_at IS NOT NULL
        WHEN state = 'reclaimed' THEN level = 0 AND document_type IS NULL AND document_index IS NULL AND birth_date IS NULL
            AND region IS NULL AND changed_at IS NOT NULL
        ELSE level = 0 AND document_type IS NULL AND sealed IS NULL AND document_index IS NULL AND birth_date IS NULL
            AND region IS NULL END),
    CONSTRAINT key_lives_while_bound CHECK (key_destroy_at IS NULL OR state = 'reclaimed'),
    CONSTRAINT pending_while_tried CHECK (state <> 'pending_reclaim' OR case_op = 'tried')
) WITH (fillfactor = 50);

-- The history of bindings: outlives a revoke, because quotas and cooling-off count it. case_no: the case of ours that made
-- the change, which the platform's quota counts by its slot (NULL: it came with the account's history, and counts here).
CREATE TABLE identity.change (
    account_id bigint NOT NULL CHECK (account_id > 0),
    change_id bigint NOT NULL CHECK (change_id > 0),
    kind text NOT NULL CHECK (kind IN ('bound', 'renamed', 'document_renewed', 'document_swapped')),
    document_type text NOT NULL,
    document_index bytea NOT NULL CHECK (length(document_index) = 32),
    at timestamptz NOT NULL,
    case_no bigint CHECK (case_no > 0),
    PRIMARY KEY (account_id, change_id)
);
-- "The same document, on whatever accounts" (ID-QUOTA).
CREATE INDEX change_document ON identity.change (document_index, at);
