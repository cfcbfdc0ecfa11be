-- Every time that somebody read what law keeps, held it beyond its day or let go of it again: who, when, and for which purpose. Written
-- before it is done, so nothing is read without it. A row stays when what it speaks of is gone.
CREATE TABLE platform.retention_act (
    account_id bigint NOT NULL CHECK (account_id > 0),
    act_id uuid NOT NULL,
    act text NOT NULL CHECK (act IN ('read', 'hold', 'release')),
    purpose text NOT NULL CHECK (purpose <> ''),
    done_by text NOT NULL CHECK (done_by <> ''),
    at timestamptz NOT NULL,
    PRIMARY KEY (account_id, act_id)
);

ALTER TABLE platform.retention_act ADD CONSTRAINT times_can_be_read CHECK (
        at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00');
