-- Seals cover the whole record of a case, and are made within seconds of its end (saga/seals.py, usecases/timelines/seal.py).

-- One row, from the first seal on: no save ends a case at or before this time any more. The sealer raises it, waits for the saves that began before,
-- and then knows every case that ended until then.
CREATE TABLE platform.seal_floor (
    only_one smallint PRIMARY KEY CHECK (only_one = 1),
    until timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO platform.seal_floor (only_one, until) SELECT 1, max(ended_until) FROM platform.timeline_seal HAVING count(*) > 0;

-- Seals of form 2 hold 80 bytes a case, those of form 1, made before, 48. The signed statement says which.
ALTER TABLE platform.timeline_seal DROP CONSTRAINT timeline_seal_cases_check;
ALTER TABLE platform.timeline_seal ADD CONSTRAINT whole_leaves CHECK (length(cases) % 48 = 0 OR length(cases) % 80 = 0);

ALTER TABLE platform.seal_floor ADD CONSTRAINT times_can_be_read CHECK (
        until BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00');
