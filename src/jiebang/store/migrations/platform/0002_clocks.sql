-- Times that every process can read, and clocks: whatever one process stamps and another judges goes by this database's clock.

-- No time beyond what a client can represent: one such row would fail every batch that it is read with, and so hold up strangers.
-- (NOT VALID: rows from before are not read again; each new or changed one is checked.)
ALTER TABLE platform.account ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.cases ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND due_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND rests_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND deadline BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND withdraw_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND ended_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.case_event ADD CONSTRAINT times_can_be_read CHECK (
        at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.timeline_seal ADD CONSTRAINT times_can_be_read CHECK (
        ended_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND moved_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.proof ADD CONSTRAINT times_can_be_read CHECK (
        expires_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND proven_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.consent ADD CONSTRAINT times_can_be_read CHECK (
        given_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND withdrawn_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.remedy ADD CONSTRAINT times_can_be_read CHECK (
        begun_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND done_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.step_up ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND expires_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND used_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND ended_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.identity_quota ADD CONSTRAINT times_can_be_read CHECK (
        claimed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.quota_refusal ADD CONSTRAINT times_can_be_read CHECK (
        refused_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.outbox ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND due_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND delivered_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.idempotency ADD CONSTRAINT times_can_be_read CHECK (
        held_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND expires_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.bucket_lease ADD CONSTRAINT times_can_be_read CHECK (
        until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.worker ADD CONSTRAINT times_can_be_read CHECK (
        seen_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND wished_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.recovery ADD CONSTRAINT times_can_be_read CHECK (
        begun_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND ended_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.participant_outage ADD CONSTRAINT times_can_be_read CHECK (
        out_since BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND back_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.task ADD CONSTRAINT times_can_be_read CHECK (
        raised_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND acknowledged_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND closed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.check_record ADD CONSTRAINT times_can_be_read CHECK (
        at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.policy_pack ADD CONSTRAINT times_can_be_read CHECK (
        added_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.policy_activation ADD CONSTRAINT times_can_be_read CHECK (
        proposed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND approved_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND in_force_since BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND lapsed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.policy_state ADD CONSTRAINT times_can_be_read CHECK (
        in_force_since BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND shadow_since BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;

-- clock_off_ms: by how much the worker's own clock was ahead of this database's (behind: below zero) at its last heartbeat, where
-- that is too much: such a worker claims nothing and has no share of the buckets. NULL: its clock is right.
ALTER TABLE platform.worker ADD COLUMN clock_off_ms integer;

-- Workers whose buckets an operator freed because they were dead: who did it and when, how many buckets those were, and until when
-- the worker's last heartbeat was to hold (NULL: it had left no heartbeat).
CREATE TABLE platform.worker_freed (
    worker_id text NOT NULL,
    freed_at timestamptz NOT NULL,
    freed_by text NOT NULL CHECK (freed_by <> ''),
    buckets integer NOT NULL CHECK (buckets BETWEEN 0 AND 256),
    seen_until timestamptz,
    PRIMARY KEY (worker_id, freed_at),
    CONSTRAINT times_can_be_read CHECK (
        freed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND seen_until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00')
);
