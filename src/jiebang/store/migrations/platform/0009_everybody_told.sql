-- The outbox holds messages to everybody who is told, not to the person alone.
-- addressee_kind, addressee: to whom; the person of the account has no other name. A message to an organisation is in the bucket of
-- the addressee, not of the account, so that one worker sends all that it gets, in order. app: signals by open standards, coming.
-- spread_at: of the message that a case is done: when the messages to the others were queued. It stays due until then.
-- dead_at, dead_code: given up, and why; an operator may replay it (replayed_by, replayed_at: who did, and when last).
ALTER TABLE platform.outbox
    ADD COLUMN addressee_kind text NOT NULL DEFAULT 'person'
        CHECK (addressee_kind IN ('person', 'merchant', 'enterprise', 'platform', 'app')),
    ADD COLUMN addressee text NOT NULL DEFAULT '',
    ADD COLUMN spread_at timestamptz,
    ADD COLUMN dead_at timestamptz,
    ADD COLUMN dead_code text,
    ADD COLUMN replayed_by text,
    ADD COLUMN replayed_at timestamptz,
    ADD CONSTRAINT person_by_account CHECK ((addressee_kind = 'person') = (addressee = '')),
    ADD CONSTRAINT dead_for_a_reason CHECK ((dead_at IS NULL) = (dead_code IS NULL)),
    ADD CONSTRAINT delivered_is_not_dead CHECK (delivered_at IS NULL OR dead_at IS NULL),
    ADD CONSTRAINT replayed_by_somebody CHECK ((replayed_by IS NULL) = (replayed_at IS NULL)),
    DROP CONSTRAINT due_until_delivered,
    ADD CONSTRAINT due_until_settled CHECK (due_at IS NOT NULL OR delivered_at IS NOT NULL OR dead_at IS NOT NULL);
-- What an organisation still has to get, the oldest first; and what was given up, for operators.
CREATE INDEX outbox_addressee ON platform.outbox (addressee_kind, addressee, created_at, message_id)
    WHERE due_at IS NOT NULL AND addressee_kind <> 'person';
CREATE INDEX outbox_dead ON platform.outbox (dead_at, account_id, message_id) WHERE dead_at IS NOT NULL;

-- Of cases that were done before, nobody but the person was to be told.
UPDATE platform.outbox SET spread_at = now() WHERE due_at IS NOT NULL AND template = 'case_done';

ALTER TABLE platform.outbox DROP CONSTRAINT times_can_be_read;
ALTER TABLE platform.outbox ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND due_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND delivered_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND spread_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND dead_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND replayed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
