-- Participant merchant: merchant numbers, and the records that commercial retention keeps.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA merchant;

-- The merchant side of an account, with the fence of the saga.
-- records_kept_until: after a revoke, the last day its retained records are visible (NULL: no revoke yet, or no retention).
CREATE TABLE merchant.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    records_kept_until timestamptz
) WITH (fillfactor = 50);

-- Merchant numbers (商户号). Outlives a revoke: closing one is a case of its own.
CREATE TABLE merchant.merchant_number (
    account_id bigint NOT NULL CHECK (account_id > 0),
    merchant_no text NOT NULL CHECK (merchant_no ~ '^[0-9]{8,10}$'),
    name text NOT NULL,
    category text NOT NULL,
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    PRIMARY KEY (account_id, merchant_no)
);

-- The historic real-name records of a merchant number. sealed: the name as recorded, under the retention key
-- (NULL until the merchant's identity is first retained). Outlives a revoke: that is what it is for.
CREATE TABLE merchant.retained_record (
    account_id bigint NOT NULL CHECK (account_id > 0),
    record_id bigint NOT NULL CHECK (record_id > 0),
    merchant_no text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('real_name', 'settlement', 'licence')),
    sealed bytea,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, record_id)
);
