-- Participant loyalty: points and coupons.
CREATE SCHEMA loyalty;

-- The membership, with the fence of the saga. frozen: no points move while a case tries. partner, partner_since and
-- partner_mark: where the points went, since when, and under which of the partner's marks (NULL: nowhere).
CREATE TABLE loyalty.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    points integer NOT NULL DEFAULT 0 CHECK (points >= 0),
    tier text CHECK (tier IN ('silver', 'gold')),
    redeeming boolean NOT NULL DEFAULT false,
    frozen boolean NOT NULL DEFAULT false,
    notify boolean NOT NULL DEFAULT false,
    member_since timestamptz,
    partner text,
    partner_since date,
    partner_mark bytea,
    CONSTRAINT frozen_while_tried CHECK (NOT frozen OR case_op = 'tried')
) WITH (fillfactor = 50);

-- Dead with their epoch.
CREATE TABLE loyalty.coupon (
    account_id bigint NOT NULL CHECK (account_id > 0),
    coupon_id bigint NOT NULL CHECK (coupon_id > 0),
    title text NOT NULL,
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, coupon_id)
);

-- What cases brought, until their Confirm takes it up or their Cancel drops it. Outlives a revoke, which brings nothing.
CREATE TABLE loyalty.staged (
    account_id bigint NOT NULL CHECK (account_id > 0),
    case_no bigint NOT NULL CHECK (case_no > 0),
    operation text NOT NULL,
    given jsonb NOT NULL CHECK (jsonb_typeof(given) = 'object'),
    staged_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, case_no)
);
