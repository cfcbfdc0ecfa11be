-- What an account has taken up of what policy allows it in a window of time: cases, codes, and messages of every kind (those that
-- a case will still send are counted when it is opened). counted_since: the begin of the window. case_opened_at: when the last case was opened.
-- They stand in the row that a new case writes anyway, so that no case costs another row and no race another case.
-- told_at: when the owner last heard of wrong tries. unlocked_at: when they last freed their proofs; tries before it are settled.
ALTER TABLE platform.account
    ADD COLUMN counted_since timestamptz,
    ADD COLUMN cases_counted integer NOT NULL DEFAULT 0 CHECK (cases_counted >= 0),
    ADD COLUMN codes_counted integer NOT NULL DEFAULT 0 CHECK (codes_counted >= 0),
    ADD COLUMN messages_counted integer NOT NULL DEFAULT 0 CHECK (messages_counted >= 0),
    ADD COLUMN case_opened_at timestamptz,
    ADD COLUMN told_at timestamptz,
    ADD COLUMN unlocked_at timestamptz;

-- Wrong tries at a proof, a row each, by when they were made. `proof`: of a case by its method; 'remedy': of a remedy, which asks
-- for several at once; 'unlock': at freeing locked proofs. Rows that no window reaches any more go when the account's next one comes.
CREATE TABLE platform.wrong_try (
    account_id bigint NOT NULL CHECK (account_id > 0),
    tried_at timestamptz NOT NULL,
    try_id uuid NOT NULL,
    proof text NOT NULL CHECK (proof IN ('payment_password', 'sms_code', 'remedy', 'unlock')),
    PRIMARY KEY (account_id, tried_at, try_id)
);

-- Tries made before have no time of their own: they keep the one by which they were counted until now. A proof began with as many tries
-- as the most that any of its plan and kind has left.
INSERT INTO platform.wrong_try (account_id, tried_at, try_id, proof)
SELECT s.account_id, s.created_at, gen_random_uuid(), 'remedy'
FROM platform.step_up s CROSS JOIN generate_series(1, s.wrong)
WHERE s.created_at > now() - interval '30 days';
INSERT INTO platform.wrong_try (account_id, tried_at, try_id, proof)
SELECT p.account_id, p.created_at, gen_random_uuid(), p.method
FROM (
    SELECT p.account_id, p.method, p.tries_left, c.created_at, max(p.tries_left) OVER (PARTITION BY c.plan, c.kind) AS tries
    FROM platform.cases c JOIN platform.proof p ON p.account_id = c.account_id AND p.case_no = c.case_no
    WHERE c.created_at > now() - interval '30 days'
) p CROSS JOIN generate_series(1, p.tries - p.tries_left);

ALTER TABLE platform.account DROP CONSTRAINT times_can_be_read;
ALTER TABLE platform.account ADD CONSTRAINT times_can_be_read CHECK (
        created_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND counted_since BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND case_opened_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND told_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00'
        AND unlocked_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00') NOT VALID;
ALTER TABLE platform.wrong_try ADD CONSTRAINT times_can_be_read CHECK (
        tried_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00');
