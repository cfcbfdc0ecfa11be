-- Which keys the installation has: a keyed hash of each key file, so that a host with other keys is refused before it
-- seals or judges anything with them. A key that was rotated has one row for each key it ever was; the newest counts.
CREATE TABLE platform.key_fingerprint (
    name text NOT NULL CHECK (name <> ''),
    recorded_at timestamptz NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    PRIMARY KEY (name, recorded_at)
);
