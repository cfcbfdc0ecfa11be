-- The platform's own store. Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA platform;

-- The accounts the platform knows, and the last case number given to each: numbers grow and are never reused.
CREATE TABLE platform.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    last_case_no bigint NOT NULL DEFAULT 0 CHECK (last_case_no BETWEEN 0 AND 4294967295),
    created_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- One case. `marks` holds a letter for each participant of its plan; which letters and columns a state allows
-- is refused or admitted here as well as in model/case.py (a test compares the two).
CREATE TABLE platform.cases (
    account_id bigint NOT NULL,
    case_no bigint NOT NULL CHECK (case_no BETWEEN 1 AND 4294967295),
    bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 255),
    kind text NOT NULL CHECK (kind IN ('revoke', 'close_payment', 'change_identity', 'appeal',
        'change_legal_person', 'close_merchant', 'restore')),
    state text NOT NULL,
    plan text NOT NULL,
    marks text NOT NULL,
    versions bigint[] NOT NULL DEFAULT '{}',
    wallet_version bigint,
    revision integer NOT NULL DEFAULT 1 CHECK (revision > 0),
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    created_at timestamptz NOT NULL,
    due_at timestamptz,
    deadline timestamptz,
    withdraw_at timestamptz,
    ended_at timestamptz,
    reason text,
    device_id text,
    PRIMARY KEY (account_id, case_no),
    CONSTRAINT state_and_marks CHECK (CASE state
        WHEN 'open' THEN marks ~ '^\.+$'
        WHEN 'in_review' THEN marks ~ '^\.+$'
        WHEN 'ready' THEN marks ~ '^\.+$' AND wallet_version IS NOT NULL
        WHEN 'trying' THEN marks ~ '^[.tg]+$' AND deadline IS NOT NULL
        WHEN 'confirming' THEN marks ~ '^[ceCd]+$' AND withdraw_at IS NULL
        WHEN 'cancelling' THEN marks ~ '^[.xyXz]+$'
        WHEN 'done' THEN marks ~ '^d+$'
        WHEN 'aborted' THEN marks ~ '^[.z]+$' AND reason IS NOT NULL
        WHEN 'rejected' THEN marks ~ '^\.+$' AND reason IS NOT NULL
        WHEN 'withdrawn' THEN marks ~ '^\.+$' AND withdraw_at IS NOT NULL
        WHEN 'expired' THEN marks ~ '^\.+$'
        ELSE false END),
    CONSTRAINT ended_and_due CHECK ((ended_at IS NOT NULL) = (state IN ('done', 'aborted', 'rejected', 'withdrawn', 'expired'))
        AND (ended_at IS NULL OR due_at IS NULL)),
    CONSTRAINT trying_has_versions CHECK (state NOT IN ('trying', 'confirming', 'done', 'cancelling', 'aborted')
        OR cardinality(versions) = length(marks))
) WITH (fillfactor = 50);

-- At most one live case an account.
CREATE UNIQUE INDEX case_live ON platform.cases (account_id) WHERE ended_at IS NULL;
-- What a worker reads: the due cases of its buckets.
CREATE INDEX case_due ON platform.cases (bucket, due_at) WHERE due_at IS NOT NULL;

-- The timeline: what each save of a case did and what it had learnt, one row a save.
-- entries: [{"at", "what", "participant"?, "op"?, "answer"?, "code"?, "state"?}]
CREATE TABLE platform.case_event (
    account_id bigint NOT NULL,
    case_no bigint NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    at timestamptz NOT NULL,
    entries jsonb NOT NULL CHECK (jsonb_typeof(entries) = 'array' AND jsonb_array_length(entries) > 0),
    PRIMARY KEY (account_id, case_no, revision)
);

-- The proofs a case asks for. A code is never stored: it is derived from the nonce under the platform's key.
CREATE TABLE platform.proof (
    account_id bigint NOT NULL,
    case_no bigint NOT NULL,
    method text NOT NULL CHECK (method IN ('payment_password', 'sms_code')),
    nonce bytea,
    expires_at timestamptz,
    tries_left smallint NOT NULL CHECK (tries_left >= 0),
    proven_at timestamptz,
    PRIMARY KEY (account_id, case_no, method),
    CONSTRAINT code_has_expiry CHECK ((nonce IS NULL) = (expires_at IS NULL))
) WITH (fillfactor = 50);

-- What is to be told to the person's phone and e-mail. Delivered rows keep their time and lose their due time.
CREATE TABLE platform.outbox (
    account_id bigint NOT NULL,
    message_id uuid NOT NULL,
    bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 255),
    case_no bigint NOT NULL,
    template text NOT NULL,
    params jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    due_at timestamptz,
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    delivered_at timestamptz,
    PRIMARY KEY (account_id, message_id),
    CONSTRAINT due_until_delivered CHECK ((due_at IS NULL) = (delivered_at IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX outbox_due ON platform.outbox (bucket, due_at) WHERE due_at IS NOT NULL;

-- Answers kept for repeated mutations, claimed in the mutation's own transaction.
-- Distributed by caller, not by account: the same key must meet itself whatever account the body names.
CREATE TABLE platform.idempotency (
    caller text NOT NULL,
    route text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    body_hash bytea NOT NULL,
    status smallint,
    answer bytea,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (caller, route, key)
);
CREATE INDEX idempotency_expiry ON platform.idempotency (expires_at);

-- Which worker tends which bucket of accounts, until when. A few rows for the whole installation.
CREATE TABLE platform.bucket_lease (
    bucket smallint PRIMARY KEY CHECK (bucket BETWEEN 0 AND 255),
    worker_id text NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE platform.worker (
    worker_id text PRIMARY KEY,
    seen_until timestamptz NOT NULL
) WITH (fillfactor = 50);
