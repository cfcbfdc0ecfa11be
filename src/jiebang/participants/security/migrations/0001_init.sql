-- Participant security: devices, logins and their anomalies, second factors, holds.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA security;

-- The security record of an account, with the fence of the saga. level: 1 (plain) to 5. login_needs_sms: every login asks for an SMS code.
CREATE TABLE security.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    level smallint NOT NULL DEFAULT 1 CHECK (level BETWEEN 1 AND 5),
    primary_device_id text,
    primary_device_since timestamptz,
    login_needs_sms boolean NOT NULL DEFAULT false,
    CONSTRAINT device_with_since CHECK ((primary_device_id IS NULL) = (primary_device_since IS NULL))
) WITH (fillfactor = 50);

-- The device registry. biometric: has a platform authenticator. Outlives a revoke.
CREATE TABLE security.device (
    account_id bigint NOT NULL CHECK (account_id > 0),
    device_id text NOT NULL CHECK (length(device_id) BETWEEN 1 AND 64),
    platform text NOT NULL CHECK (platform IN ('ios', 'harmonyos', 'android', 'windows', 'macos', 'other')),
    model text NOT NULL,
    os_version text NOT NULL,
    biometric boolean NOT NULL,
    registered_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    retired_at timestamptz,
    PRIMARY KEY (account_id, device_id)
);

-- Logins. anomaly NULL: nothing unusual. confirmed_at: when the person said of an anomaly "it was me",
-- confirmed_by: by which remedy. Outlives a revoke.
CREATE TABLE security.login (
    account_id bigint NOT NULL CHECK (account_id > 0),
    login_id bigint NOT NULL CHECK (login_id > 0),
    device_id text NOT NULL,
    place text NOT NULL,
    at timestamptz NOT NULL,
    anomaly text CHECK (anomaly IN ('new_device', 'far_place', 'odd_hour', 'many_failures')),
    confirmed_at timestamptz,
    confirmed_by uuid,
    PRIMARY KEY (account_id, login_id),
    CONSTRAINT only_anomalies_are_confirmed CHECK (confirmed_at IS NULL OR anomaly IS NOT NULL),
    CONSTRAINT confirmed_by_somebody CHECK (confirmed_by IS NULL OR confirmed_at IS NOT NULL)
);
CREATE INDEX login_abnormal ON security.login (account_id, at) WHERE anomaly IS NOT NULL AND confirmed_at IS NULL;

-- Second factors. label: masked, as shown to the person ("138****5678"). Outlives a revoke.
CREATE TABLE security.second_factor (
    account_id bigint NOT NULL CHECK (account_id > 0),
    factor_id bigint NOT NULL CHECK (factor_id > 0),
    kind text NOT NULL CHECK (kind IN ('sms', 'email', 'webauthn')),
    label text NOT NULL,
    enrolled_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, factor_id)
);

-- Holds of a court or authority, and of the risk engine. Outlives a revoke.
CREATE TABLE security.hold (
    account_id bigint NOT NULL CHECK (account_id > 0),
    hold_id bigint NOT NULL CHECK (hold_id > 0),
    kind text NOT NULL CHECK (kind IN ('legal', 'risk')),
    authority text NOT NULL,
    contact text NOT NULL,
    placed_at timestamptz NOT NULL,
    lifted_at timestamptz,
    PRIMARY KEY (account_id, hold_id)
);
