-- Participant enterprise: memberships and administrators, legal persons, approvals, API credentials.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA enterprise;

-- The enterprise side of an account, with the fence of the saga. api_rights: may call enterprise APIs at all.
CREATE TABLE enterprise.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    api_rights boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- Enterprises as seen through their members. credit_code: unified social credit code. Outlives a revoke.
CREATE TABLE enterprise.membership (
    account_id bigint NOT NULL CHECK (account_id > 0),
    enterprise_id bigint NOT NULL CHECK (enterprise_id > 0),
    name text NOT NULL,
    credit_code text NOT NULL CHECK (length(credit_code) = 18),
    role text NOT NULL CHECK (role IN ('administrator', 'member')),
    legal_person boolean NOT NULL DEFAULT false,
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    PRIMARY KEY (account_id, enterprise_id)
);

-- Approval processes the account started. Dead with their epoch.
CREATE TABLE enterprise.approval (
    account_id bigint NOT NULL CHECK (account_id > 0),
    approval_id bigint NOT NULL CHECK (approval_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    enterprise_id bigint NOT NULL CHECK (enterprise_id > 0),
    title text NOT NULL,
    state text NOT NULL CHECK (state IN ('in_flight', 'approved', 'rejected', 'recalled')),
    submitted_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (account_id, approval_id),
    CONSTRAINT ended_unless_in_flight CHECK ((state = 'in_flight') = (ended_at IS NULL))
);

-- API credentials issued to the account for an enterprise. Dead with their epoch.
CREATE TABLE enterprise.api_credential (
    account_id bigint NOT NULL CHECK (account_id > 0),
    credential_id bigint NOT NULL CHECK (credential_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    enterprise_id bigint NOT NULL CHECK (enterprise_id > 0),
    name text NOT NULL,
    issued_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, credential_id)
);
