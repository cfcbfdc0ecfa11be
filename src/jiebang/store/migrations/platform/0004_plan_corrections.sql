-- What two operators set right in the plan of a version that its participant cannot carry out: versions never change, and cases
-- that are past the commit point follow theirs for ever. From its approval on, `value` stands in the place of the effect in the
-- plan of `pack` for `kind`, for every case that follows it (JSON null: the effect is left out); `was` is what stood there. A
-- proposal lapses when another is made for the same effect. A few rows for the whole installation.
CREATE TABLE platform.plan_correction (
    correction_no bigint PRIMARY KEY CHECK (correction_no > 0),
    pack text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('revoke', 'close_payment', 'change_identity', 'appeal',
        'change_legal_person', 'close_merchant', 'restore')),
    participant text NOT NULL,
    effect text NOT NULL,
    value jsonb NOT NULL,
    was jsonb NOT NULL,
    why text NOT NULL CHECK (why <> ''),
    proposed_by text NOT NULL CHECK (proposed_by <> ''),
    proposed_at timestamptz NOT NULL,
    approved_by text CHECK (approved_by <> ''),
    approved_at timestamptz,
    lapsed_at timestamptz,
    CONSTRAINT correction_by_two_people CHECK (lower(approved_by) <> lower(proposed_by)),
    CONSTRAINT correction_approved_by_and_at CHECK ((approved_by IS NULL) = (approved_at IS NULL)),
    CONSTRAINT correction_approved_or_lapsed CHECK (approved_at IS NULL OR lapsed_at IS NULL)
);
-- At most one open proposal for an effect.
CREATE UNIQUE INDEX plan_correction_open ON platform.plan_correction (pack, kind, participant, effect)
    WHERE approved_at IS NULL AND lapsed_at IS NULL;

ALTER TABLE platform.plan_correction ADD CONSTRAINT times_can_be_read CHECK (
        proposed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND approved_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND lapsed_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00');
