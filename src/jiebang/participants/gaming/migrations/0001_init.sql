-- Participant gaming: the playing-time guard for minors (防沉迷) and game access.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA gaming;

-- The gaming side of an account, with the fence of the saga.
-- game_guard: the playing-time guard is on. suspended: a minor's games are off while a case runs, and only then.
CREATE TABLE gaming.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    game_guard boolean NOT NULL DEFAULT false,
    suspended boolean NOT NULL DEFAULT false,
    CONSTRAINT suspended_while_tried CHECK (NOT suspended OR case_op = 'tried')
) WITH (fillfactor = 50);

-- Games the account may play. Outlives a revoke.
CREATE TABLE gaming.access (
    account_id bigint NOT NULL CHECK (account_id > 0),
    game_id bigint NOT NULL CHECK (game_id > 0),
    name text NOT NULL,
    granted_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    PRIMARY KEY (account_id, game_id)
);

-- Playing times, which the guard counts. ended_at NULL: playing now. Outlives a revoke.
CREATE TABLE gaming.play_session (
    account_id bigint NOT NULL CHECK (account_id > 0),
    session_id bigint NOT NULL CHECK (session_id > 0),
    game_id bigint NOT NULL CHECK (game_id > 0),
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    PRIMARY KEY (account_id, session_id),
    CONSTRAINT ends_after_start CHECK (ended_at >= started_at)
);
