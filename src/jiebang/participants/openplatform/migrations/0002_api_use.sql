-- test_calls_per_day: how many calls a day of each API an app or mini program has while the level is test (NULL: as many as its
-- quota says).
ALTER TABLE openplatform.account ADD COLUMN test_calls_per_day integer CHECK (test_calls_per_day >= 0);

-- How often a subject (an app or a mini program) has called an API on the Shanghai day used_on, its last. Outlives a revoke.
CREATE TABLE openplatform.api_use (
    account_id bigint NOT NULL CHECK (account_id > 0),
    subject_id text NOT NULL,
    api text NOT NULL,
    used_on date NOT NULL,
    calls integer NOT NULL CHECK (calls >= 0),
    PRIMARY KEY (account_id, subject_id, api)
) WITH (fillfactor = 50);
