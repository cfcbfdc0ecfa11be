-- Which keys the installation has: a keyed hash of each key file, so that a host with other keys is refused before it
-- seals or judges anything with them. A key that was rotated has one row for each key it ever was; the newest counts.
CREATE TABLE platform.key_fingerprint (
    name text NOT NULL CHECK (name <> ''),
    recorded_at timestamptz NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    PRIMARY KEY (name, recorded_at)
);

ALTER TABLE platform.key_fingerprint ADD CONSTRAINT times_can_be_read CHECK (
        recorded_at BETWEEN '0001-01-02 00:00+00' AND '9999-12-30 00:00+00');
