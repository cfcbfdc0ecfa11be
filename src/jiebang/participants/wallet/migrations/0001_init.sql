-- Participant wallet: balance, ledger, red packets, limits, cards, contracts, credit, arrears, freezes.
-- Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA wallet;

-- The payment account, with the fence of the saga.
-- balance_fen equals the account's ledger at every commit: completed entries, and pending ones that take money.
-- open_entries counts its pending entries. receive_limit_fen: most it may receive on one Shanghai day (NULL: no limit);
-- received_fen counts towards it on the day received_on. cash_out_paused_until: no cash-out before (NULL: not paused).
-- password_hash: HMAC-SHA256 of salt and payment password under the wallet's pepper (NULL: none set).
CREATE TABLE wallet.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    facts_version bigint NOT NULL DEFAULT 1 CHECK (facts_version > 0),
    case_no bigint NOT NULL DEFAULT 0 CHECK (case_no >= 0),
    case_op text NOT NULL DEFAULT 'cancelled' CHECK (case_op IN ('tried', 'confirmed', 'cancelled')),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    balance_fen bigint NOT NULL DEFAULT 0 CHECK (balance_fen >= 0),
    open_entries integer NOT NULL DEFAULT 0 CHECK (open_entries >= 0),
    receive_limit_fen bigint CHECK (receive_limit_fen >= 0),
    received_fen bigint NOT NULL DEFAULT 0 CHECK (received_fen >= 0),
    received_on date,
    cash_out_paused_until timestamptz,
    password_salt bytea CHECK (length(password_salt) = 16),
    password_hash bytea CHECK (length(password_hash) = 32),
    CONSTRAINT salt_with_hash CHECK ((password_salt IS NULL) = (password_hash IS NULL)),
    CONSTRAINT received_on_a_day CHECK (received_fen = 0 OR received_on IS NOT NULL),
    CONSTRAINT closed_is_empty CHECK (state = 'open' OR balance_fen = 0),
    CONSTRAINT no_movement_while_tried CHECK (case_op <> 'tried' OR open_entries = 0)
) WITH (fillfactor = 50);

-- The ledger and the list of transactions in one: every movement of money of an account, its opening balance included.
-- amount_fen: what comes in (> 0) or goes out (< 0). A pending outgoing entry has already left the balance, a pending
-- incoming one has not yet reached it, a returned one has had no effect in the end. A transfer is two entries under one
-- entry_id, one at each account, which point at each other by counterparty_id.
-- expected_at: when a pending entry should end, where known. Outlives a revoke: law keeps transactions.
CREATE TABLE wallet.entry (
    account_id bigint NOT NULL CHECK (account_id > 0),
    entry_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('opening', 'transfer', 'payment', 'refund', 'red_packet', 'cash_in', 'cash_out')),
    counterparty_id bigint CHECK (counterparty_id > 0),
    title text NOT NULL,
    amount_fen bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'completed', 'returned')),
    made_at timestamptz NOT NULL,
    expected_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (account_id, entry_id),
    CONSTRAINT transfer_has_two_sides CHECK ((kind = 'transfer') = (counterparty_id IS NOT NULL)
        AND counterparty_id IS DISTINCT FROM account_id),
    CONSTRAINT sign_fits_kind CHECK (CASE
        WHEN kind IN ('payment', 'cash_out') THEN amount_fen < 0
        WHEN kind IN ('refund', 'red_packet', 'cash_in') THEN amount_fen > 0
        WHEN kind = 'transfer' THEN amount_fen <> 0
        ELSE amount_fen >= 0 AND state = 'completed' END),
    CONSTRAINT ended_unless_pending CHECK ((state = 'pending') = (ended_at IS NULL))
) WITH (fillfactor = 80);
CREATE INDEX entry_pending ON wallet.entry (account_id) WHERE state = 'pending';
-- What the sweeper reads: transfers whose second step has not come, by their sender's side.
CREATE INDEX entry_transfer_pending ON wallet.entry (made_at) WHERE state = 'pending' AND kind = 'transfer' AND amount_fen < 0;

-- Red packets sent to the account. entry_id: the ledger entry that claimed it. ended_by: the remedy that opened or returned
-- it (NULL: ended otherwise). Outlives a revoke: none is unclaimed then.
CREATE TABLE wallet.red_packet (
    account_id bigint NOT NULL CHECK (account_id > 0),
    packet_id bigint NOT NULL CHECK (packet_id > 0),
    sender text NOT NULL,
    amount_fen bigint NOT NULL CHECK (amount_fen > 0),
    state text NOT NULL CHECK (state IN ('unclaimed', 'claimed', 'returned')),
    sent_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    entry_id uuid,
    ended_at timestamptz,
    ended_by uuid,
    PRIMARY KEY (account_id, packet_id),
    CONSTRAINT claimed_by_an_entry CHECK ((state = 'claimed') = (entry_id IS NOT NULL)),
    CONSTRAINT ended_unless_unclaimed CHECK ((state = 'unclaimed') = (ended_at IS NULL)),
    CONSTRAINT ended_by_somebody CHECK (ended_by IS NULL OR ended_at IS NOT NULL),
    CONSTRAINT expires_after_sent CHECK (expires_at > sent_at)
) WITH (fillfactor = 80);
CREATE INDEX red_packet_unclaimed ON wallet.red_packet (account_id) WHERE state = 'unclaimed';

-- Bank cards bound to the account; tail: the last four digits. Dead with their epoch.
CREATE TABLE wallet.bank_card (
    account_id bigint NOT NULL CHECK (account_id > 0),
    card_id bigint NOT NULL CHECK (card_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    bank text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('debit', 'credit')),
    tail text NOT NULL CHECK (tail ~ '^[0-9]{4}$'),
    bound_at timestamptz NOT NULL,
    unbound_at timestamptz,
    PRIMARY KEY (account_id, card_id)
);

-- Auto-debit contracts (自动扣费签约). amount_fen NULL: varies. ended_by: the remedy that ended it (NULL: ended otherwise).
-- Dead with their epoch.
CREATE TABLE wallet.autodebit_contract (
    account_id bigint NOT NULL CHECK (account_id > 0),
    contract_id bigint NOT NULL CHECK (contract_id > 0),
    epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
    merchant text NOT NULL,
    service text NOT NULL,
    amount_fen bigint CHECK (amount_fen > 0),
    next_charge_at timestamptz,
    signed_at timestamptz NOT NULL,
    ended_at timestamptz,
    ended_by uuid,
    PRIMARY KEY (account_id, contract_id),
    CONSTRAINT ended_by_somebody CHECK (ended_by IS NULL OR ended_at IS NOT NULL)
);

-- Credit products (微粒贷 and others). Outlives a revoke: a debt does not end with a name.
CREATE TABLE wallet.credit_product (
    account_id bigint NOT NULL CHECK (account_id > 0),
    product_id bigint NOT NULL CHECK (product_id > 0),
    product text NOT NULL,
    owed_fen bigint NOT NULL CHECK (owed_fen >= 0),
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    PRIMARY KEY (account_id, product_id),
    CONSTRAINT closed_owes_nothing CHECK (closed_at IS NULL OR owed_fen = 0)
);

-- What is owed outside credit products. Outlives a revoke.
CREATE TABLE wallet.arrears (
    account_id bigint NOT NULL CHECK (account_id > 0),
    arrears_id bigint NOT NULL CHECK (arrears_id > 0),
    title text NOT NULL,
    owed_fen bigint NOT NULL CHECK (owed_fen > 0),
    due_at timestamptz NOT NULL,
    repaid_at timestamptz,
    PRIMARY KEY (account_id, arrears_id)
);

-- Frozen funds: who froze them, and how to reach them. Outlives a revoke.
CREATE TABLE wallet.freeze (
    account_id bigint NOT NULL CHECK (account_id > 0),
    freeze_id bigint NOT NULL CHECK (freeze_id > 0),
    authority text NOT NULL,
    contact text NOT NULL,
    amount_fen bigint NOT NULL CHECK (amount_fen > 0),
    frozen_at timestamptz NOT NULL,
    lifted_at timestamptz,
    PRIMARY KEY (account_id, freeze_id)
);
