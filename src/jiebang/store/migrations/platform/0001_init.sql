-- The platform's own store. Rules that every table keeps: docs/schema-rules.md; a test reads them from the catalogue.
CREATE SCHEMA platform;

-- The accounts the platform knows, and the last case number given to each: numbers grow and are never reused.
CREATE TABLE platform.account (
    account_id bigint PRIMARY KEY CHECK (account_id > 0),
    last_case_no bigint NOT NULL DEFAULT 0 CHECK (last_case_no BETWEEN 0 AND 4294967295),
    created_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- One case. `marks` holds a letter for each participant of its plan; which letters and columns a state allows
-- is refused or admitted here as well as in model/case.py (a test compares the two). document_index: keyed HMAC of the
-- document whose quota the case uses (NULL: a kind that uses none). head: the hash of its timeline so far (saga/chain.py).
-- A case wants a look at due_at, or at rests_until where that is set: a case that is on its way does not move in the index for the
-- half second it takes, and a save that touches no index costs a third less.
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
    rests_until timestamptz CHECK (rests_until >= due_at),
    deadline timestamptz,
    withdraw_at timestamptz,
    ended_at timestamptz,
    reason text,
    device_id text,
    document_index bytea CHECK (length(document_index) = 32),
    head bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(head) = 32),
    PRIMARY KEY (account_id, case_no),
    CONSTRAINT state_and_marks CHECK (CASE state
        WHEN 'open' THEN marks ~ '^\.+$'
        WHEN 'in_review' THEN marks ~ '^\.+$'
        WHEN 'ready' THEN marks ~ '^\.+$' AND wallet_version IS NOT NULL
        WHEN 'trying' THEN marks ~ '^[tg]+$' AND deadline IS NOT NULL
        WHEN 'confirming' THEN marks ~ '^[ceCd]+$' AND withdraw_at IS NULL
        WHEN 'cancelling' THEN marks ~ '^[xyXz]+$'
        WHEN 'done' THEN marks ~ '^d+$'
        WHEN 'aborted' THEN marks ~ '^z+$' AND reason IS NOT NULL
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
-- Live cases that no worker looks at any more: all that is left of them waits for an operator. (Both columns are in other
-- indexes already, so this one makes no update dearer.)
CREATE INDEX case_parked ON platform.cases (bucket) WHERE due_at IS NULL AND ended_at IS NULL;
-- What is sealed next, and whether all was. A batch ends at one moment: its entries share one.
CREATE INDEX case_ended ON platform.cases (ended_at) WHERE ended_at IS NOT NULL;

-- The timeline: what each save of a case did and what it had learnt, one row a save. Its rows are chained by hash (saga/chain.py).
-- entries: [{"at", "what", "op"?, "attempt"?, "participants"?, "answer"?, "code"?, "came"?, "state"?, "reason"?}], as
-- saga/timeline.py writes them.
CREATE TABLE platform.case_event (
    account_id bigint NOT NULL,
    case_no bigint NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    at timestamptz NOT NULL,
    entries jsonb NOT NULL CHECK (jsonb_typeof(entries) = 'array' AND jsonb_array_length(entries) > 0),
    head bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (length(head) = 32),
    PRIMARY KEY (account_id, case_no, revision)
);

-- Seals on timelines: one chain for the whole installation, a row for up to a thousand cases and more. `statement` is signed
-- (JWS) and holds the hash of the seal before; `cases` are those it is about, 48 bytes each (saga/seals.py): all that ended
-- after the seal before and until ended_until, then live ones that were saved until moved_until.
CREATE TABLE platform.timeline_seal (
    seal_no bigint PRIMARY KEY CHECK (seal_no > 0),
    ended_until timestamptz NOT NULL,
    moved_until timestamptz NOT NULL,
    statement text NOT NULL,
    cases bytea NOT NULL CHECK (length(cases) % 48 = 0)
);
-- The seal of a case that ended: the first that reaches as far.
CREATE INDEX timeline_seal_ended ON platform.timeline_seal (ended_until, seal_no);

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

-- What a person agreed that a case may end: `code` the rule that asked, `what` the ids of exactly the things they were shown
-- (empty: the rule asks for one agreement to the whole).
-- Anything that came later is not in it and blocks again. case_no: the one case it was given with (NULL: any, until taken
-- back). withdrawn_at: when it was taken back, or another took its place; the row stays as the record of what was agreed.
CREATE TABLE platform.consent (
    account_id bigint NOT NULL CHECK (account_id > 0),
    consent_id uuid NOT NULL,
    code text NOT NULL,
    what text[] NOT NULL,
    case_no bigint CHECK (case_no BETWEEN 1 AND 4294967295),
    given_at timestamptz NOT NULL,
    withdrawn_at timestamptz,
    PRIMARY KEY (account_id, consent_id),
    CONSTRAINT withdrawn_after_given CHECK (withdrawn_at >= given_at)
);
-- One standing consent an account and rule.
CREATE UNIQUE INDEX consent_standing ON platform.consent (account_id, code) WHERE withdrawn_at IS NULL;

-- What was done on the spot to clear a blocker: `code` the rule it clears, `action` what was asked for. Written before the
-- participant is asked, so that nothing is done unrecorded; done_at and outcome follow ({"items": [ids], "amount_fen"?}).
CREATE TABLE platform.remedy (
    account_id bigint NOT NULL CHECK (account_id > 0),
    remedy_id uuid NOT NULL,
    code text NOT NULL,
    action text NOT NULL,
    begun_at timestamptz NOT NULL,
    done_at timestamptz,
    outcome jsonb,
    PRIMARY KEY (account_id, remedy_id),
    CONSTRAINT done_with_outcome CHECK ((done_at IS NULL) = (outcome IS NULL))
);

-- A remedy that waits for a proof: which items of rule `code` it clears, and the nonce its one-time code is derived from under
-- the platform's key (a code is never stored). `wrong` counts wrong tries. used_at: proven, and dead from then on.
-- ended_at: another took its place. device_id: the device it was asked for on.
CREATE TABLE platform.step_up (
    account_id bigint NOT NULL CHECK (account_id > 0),
    remedy_id uuid NOT NULL,
    code text NOT NULL,
    kind text NOT NULL,
    what text[] NOT NULL CHECK (cardinality(what) > 0),
    nonce bytea NOT NULL,
    device_id text,
    wrong smallint NOT NULL DEFAULT 0 CHECK (wrong >= 0),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (account_id, remedy_id),
    CONSTRAINT used_or_replaced CHECK (used_at IS NULL OR ended_at IS NULL)
);

-- How often a document was used for identity changes: one slot a change, `slot` 1 to the number policy allows a calendar
-- year (of Shanghai). A case claims its slot before its first Try, keeps it when done, and gives it back when it is broken
-- off. Changes that came with an account's history hold no slot; identity.change tells of them.
-- Distributed by document, not by account: the same document must meet itself on whatever accounts.
CREATE TABLE platform.identity_quota (
    document_index bytea NOT NULL CHECK (length(document_index) = 32),
    year smallint NOT NULL CHECK (year BETWEEN 1 AND 9999),
    slot smallint NOT NULL CHECK (slot > 0),
    account_id bigint NOT NULL CHECK (account_id > 0),
    case_no bigint NOT NULL CHECK (case_no BETWEEN 1 AND 4294967295),
    claimed_at timestamptz NOT NULL,
    PRIMARY KEY (document_index, year, slot)
);
-- A case holds one slot however often it is taken up, and finds it again.
CREATE UNIQUE INDEX identity_quota_case ON platform.identity_quota (document_index, account_id, case_no);

-- Submissions that were refused because the document's quota was used up: the last one starts the cooling-off.
-- Distributed by document, as the quota is.
CREATE TABLE platform.quota_refusal (
    document_index bytea NOT NULL CHECK (length(document_index) = 32),
    refused_at timestamptz NOT NULL,
    account_id bigint NOT NULL CHECK (account_id > 0),
    PRIMARY KEY (document_index, refused_at, account_id)
);

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

-- Answers kept for repeated mutations: the first that is kept is everybody's. holder, held_until: while a mutation that works in
-- another's database has no answer yet, which request holds the key, and until when.
-- Distributed by caller, not by account: the same key must meet itself whatever account the body names.
CREATE TABLE platform.idempotency (
    caller text NOT NULL,
    route text NOT NULL,
    key text NOT NULL CHECK (length(key) BETWEEN 1 AND 128),
    body_hash bytea NOT NULL,
    status smallint,
    answer bytea,
    holder uuid,
    held_until timestamptz,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (caller, route, key),
    CONSTRAINT answered_or_held CHECK ((status IS NULL) = (held_until IS NOT NULL)),
    CONSTRAINT whole_answer CHECK ((status IS NULL) = (answer IS NULL)),
    CONSTRAINT whole_hold CHECK ((holder IS NULL) = (held_until IS NULL))
);
CREATE INDEX idempotency_expiry ON platform.idempotency (expires_at);

-- Which worker tends which bucket of accounts, until when. A few rows for the whole installation.
CREATE TABLE platform.bucket_lease (
    bucket smallint PRIMARY KEY CHECK (bucket BETWEEN 0 AND 255),
    worker_id text NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
-- A worker's heartbeat. `wish`: what an operator wants of it, which it reads there; `state`: what it says of itself, paused
-- once it has finished what it had at hand and claims nothing more.
CREATE TABLE platform.worker (
    worker_id text PRIMARY KEY,
    seen_until timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused')),
    wish text NOT NULL DEFAULT 'run' CHECK (wish IN ('run', 'pause', 'drain')),
    wished_by text CHECK (wished_by <> ''),
    wished_at timestamptz,
    CONSTRAINT wished_by_and_at CHECK ((wished_by IS NULL) = (wished_at IS NULL))
) WITH (fillfactor = 50);

-- Runs of `jiebang recover` after a restore from backup. While one has not ended no case is claimed and none is opened.
-- restored: the databases that were put back, by participant or 'platform'. found: what it counted.
CREATE TABLE platform.recovery (
    recovery_no bigint PRIMARY KEY CHECK (recovery_no > 0),
    restored text[] NOT NULL CHECK (cardinality(restored) > 0),
    begun_by text NOT NULL CHECK (begun_by <> ''),
    begun_at timestamptz NOT NULL,
    ended_at timestamptz,
    found jsonb,
    CONSTRAINT found_when_ended CHECK ((ended_at IS NULL) = (found IS NULL))
);
-- One at a time: every process asks whether there is one.
CREATE UNIQUE INDEX recovery_open ON platform.recovery ((ended_at IS NULL)) WHERE ended_at IS NULL;

-- Participants taken out of service, and when they came back. While one is out no new case that needs it begins.
CREATE TABLE platform.participant_outage (
    participant text NOT NULL,
    out_since timestamptz NOT NULL,
    reason text NOT NULL CHECK (reason <> ''),
    out_by text NOT NULL CHECK (out_by <> ''),
    back_at timestamptz CHECK (back_at >= out_since),
    back_by text CHECK (back_by <> ''),
    PRIMARY KEY (participant, out_since),
    CONSTRAINT back_by_and_at CHECK ((back_by IS NULL) = (back_at IS NULL))
);
CREATE UNIQUE INDEX participant_out ON platform.participant_outage (participant) WHERE back_at IS NULL;

-- What a person must look at: a Confirm or Cancel that was refused twice (parked) or goes unanswered (silent), and what a
-- recovery could not decide (undecided). It changes nothing of the case, and closes by itself when the op is done; an
-- undecided one when a recovery decides it, or by hand. participant: who owes the answer, or 'platform'. place: where it
-- stands in the case's marks (NULL: nowhere). op: what it owes. why: of an undecided one, what is missing.
CREATE TABLE platform.task (
    account_id bigint NOT NULL CHECK (account_id > 0),
    case_no bigint NOT NULL CHECK (case_no BETWEEN 1 AND 4294967295),
    kind text NOT NULL CHECK (kind IN ('parked', 'silent', 'undecided')),
    participant text NOT NULL,
    bucket smallint NOT NULL CHECK (bucket BETWEEN 0 AND 255),
    place smallint CHECK (place >= 0),
    op text CHECK (op IN ('confirm', 'cancel')),
    why text CHECK (why IN ('contradicted', 'outcome_lost', 'plan_lost', 'cannot_confirm', 'cannot_try', 'waits_below')),
    raised_at timestamptz NOT NULL,
    acknowledged_by text CHECK (acknowledged_by <> ''),
    acknowledged_at timestamptz,
    closed_at timestamptz,
    note text,
    PRIMARY KEY (account_id, case_no, kind, participant),
    CONSTRAINT undecided_has_why CHECK ((kind = 'undecided') = (why IS NOT NULL)),
    CONSTRAINT op_has_place CHECK ((place IS NULL) = (op IS NULL) AND (op IS NOT NULL OR kind = 'undecided')),
    CONSTRAINT acknowledged_by_and_at CHECK ((acknowledged_by IS NULL) = (acknowledged_at IS NULL))
);
-- What is open, in the buckets of a worker that looks whether it is done.
CREATE INDEX task_open ON platform.task (bucket, raised_at) WHERE closed_at IS NULL;

-- The check that a case rests on, so that its answer can be given again: the one that opened it (step `submit`), and the
-- worker's on fresh facts where that ended it (step `take`). Facts and answer are sealed under the records key.
CREATE TABLE platform.check_record (
    account_id bigint NOT NULL,
    case_no bigint NOT NULL,
    step text NOT NULL CHECK (step IN ('submit', 'take')),
    at timestamptz NOT NULL,
    pack text NOT NULL,
    outcome text NOT NULL CHECK (outcome <> ''),
    sealed bytea NOT NULL CHECK (octet_length(sealed) > 28),
    PRIMARY KEY (account_id, case_no, step)
);

-- Every version of a policy that was ever admitted. A version never changes and never goes: cases follow their own.
CREATE TABLE platform.policy_pack (
    pack text PRIMARY KEY,
    name text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_]{0,63}$'),
    version bigint NOT NULL CHECK (version > 0),
    text text NOT NULL,
    sha256 bytea NOT NULL,
    added_by text NOT NULL CHECK (added_by <> ''),
    added_at timestamptz NOT NULL,
    CONSTRAINT pack_is_name_and_version CHECK (pack = name || '/' || version),
    CONSTRAINT sha256_of_text CHECK (sha256 = sha256(convert_to(text, 'UTF8')))
);

-- Who wanted which version in force, who agreed, and since when it is (or was) in force. A proposal waits until a second
-- person approves it, or lapses when another version comes into force first. `replaces`: the activation before, which a
-- rollback goes back to.
CREATE TABLE platform.policy_activation (
    activation_no bigint PRIMARY KEY CHECK (activation_no > 0),
    pack text NOT NULL,
    action text NOT NULL CHECK (action IN ('install', 'activate', 'rollback')),
    proposed_by text NOT NULL CHECK (proposed_by <> ''),
    proposed_at timestamptz NOT NULL,
    approved_by text CHECK (approved_by <> ''),
    approved_at timestamptz,
    in_force_since timestamptz,
    lapsed_at timestamptz,
    replaces bigint CHECK (replaces < activation_no),
    CONSTRAINT two_different_people CHECK (lower(approved_by) <> lower(proposed_by)),
    CONSTRAINT approved_by_and_at CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CONSTRAINT in_force_only_when_approved CHECK (
        in_force_since IS NULL OR (lapsed_at IS NULL AND (approved_by IS NOT NULL OR action <> 'activate')))
);
-- At most one open proposal a version: a second person approves it instead of making another.
CREATE UNIQUE INDEX activation_open ON platform.policy_activation (pack) WHERE in_force_since IS NULL AND lapsed_at IS NULL;

-- One row, which every process reads several times a second: the version in force since a time, the one before it, and
-- the one that runs in shadow. `revision` grows with every change, and with every version that is added.
CREATE TABLE platform.policy_state (
    only_one smallint PRIMARY KEY CHECK (only_one = 1),
    revision bigint NOT NULL CHECK (revision > 0),
    activation_no bigint NOT NULL CHECK (activation_no > 0),
    pack text NOT NULL,
    in_force_since timestamptz NOT NULL,
    before text NOT NULL,
    shadow text,
    shadow_by text,
    shadow_since timestamptz,
    CONSTRAINT shadow_whole CHECK (num_nonnulls(shadow, shadow_by, shadow_since) IN (0, 3))
) WITH (fillfactor = 50);

-- What a version in shadow would have said on live checks. Code '' counts whole answers (that something blocks), every
-- other code one rule. `checks`: how many were compared; `in_both`, `only_live`, `only_shadow`: where it was raised.
CREATE TABLE platform.policy_shadow (
    shadow text NOT NULL,
    live text NOT NULL,
    kind text NOT NULL,
    segment text NOT NULL,
    code text NOT NULL,
    checks bigint NOT NULL CHECK (checks >= 0),
    in_both bigint NOT NULL CHECK (in_both >= 0),
    only_live bigint NOT NULL CHECK (only_live >= 0),
    only_shadow bigint NOT NULL CHECK (only_shadow >= 0),
    PRIMARY KEY (shadow, live, kind, segment, code),
    CONSTRAINT raised_within_checks CHECK (in_both + only_live + only_shadow <= checks)
) WITH (fillfactor = 50);
