-- Participant openplatform: OAuth grants and tokens, third-party apps, mini programs, official accounts, reviews, quotas.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA openplatform;

-- The developer side of an account, with the fence of the saga.
-- api_quota_level none: not a developer. test: the level until a qualification is accepted.
CREATE TABLE openplatform.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    api_quota_level text NOT NULL DEFAULT 'none' CHECK (api_quota_level IN ('none', 'test', 'standard', 'high'))
) WITH (fillfactor = 50);

-- Third-party apps this account develops. technical_lead: the person leads them technically. Outlives a revoke.
CREATE TABLE openplatform.app (
    account_id bigint NOT NULL CHECK (account_id > 0),
    app_id text NOT NULL,
    name text NOT NULL,
    technical_lead boolean NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at timestamptz,
    PRIMARY KEY (account_id, app_id)
);

-- OAuth grants: what the person allowed which app. Dead with their epoch.
CREATE TABLE openplatform.oauth_grant (
    account_id bigint NOT NULL CHECK (account_id > 0),
    grant_id bigint NOT NULL CHECK (grant_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    app_id text NOT NULL,
    app_name text NOT NULL,
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0),
    granted_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, grant_id)
);

-- Tokens issued under those grants; the secret itself is nowhere. Dead with their epoch.
CREATE TABLE openplatform.oauth_token (
    account_id bigint NOT NULL CHECK (account_id > 0),
    token_id bigint NOT NULL CHECK (token_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    grant_id bigint NOT NULL CHECK (grant_id > 0),
    kind text NOT NULL CHECK (kind IN ('access', 'refresh')),
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, token_id),
    CONSTRAINT expires_after_issued CHECK (expires_at > issued_at)
);

-- Mini programs (小程序) of the account. Outlives a revoke; their qualification reviews do not.
CREATE TABLE openplatform.mini_program (
    account_id bigint NOT NULL CHECK (account_id > 0),
    program_id text NOT NULL,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('draft', 'published', 'suspended', 'closed')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, program_id)
);

-- Official accounts (公众号) the account tends. Outlives a revoke.
CREATE TABLE openplatform.official_account (
    account_id bigint NOT NULL CHECK (account_id > 0),
    official_id text NOT NULL,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('administrator', 'operator')),
    joined_at timestamptz NOT NULL,
    left_at timestamptz,
    PRIMARY KEY (account_id, official_id)
);

-- Qualification reviews of mini programs and technical reviews of apps; subject_id names either. Dead with their epoch.
CREATE TABLE openplatform.review (
    account_id bigint NOT NULL CHECK (account_id > 0),
    review_id bigint NOT NULL CHECK (review_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    subject_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('qualification', 'technical')),
    state text NOT NULL CHECK (state IN ('waiting', 'accepted', 'rejected')),
    submitted_at timestamptz NOT NULL,
    decided_at timestamptz,
    PRIMARY KEY (account_id, review_id),
    CONSTRAINT decided_unless_waiting CHECK ((state = 'waiting') = (decided_at IS NULL))
);

-- What each app may call a day at the account's normal level. Outlives a revoke: the level on the account cuts it.
CREATE TABLE openplatform.quota (
    account_id bigint NOT NULL CHECK (account_id > 0),
    app_id text NOT NULL,
    api text NOT NULL,
    calls_per_day integer NOT NULL CHECK (calls_per_day >= 0),
    PRIMARY KEY (account_id, app_id, api)
);
