-- A second memory of the end of the chain of seals, apart from the platform's database and in no backup of it.

-- One row: the last seal that any worker made, and the hash of its statement. A chain that ends before it was cut, or restored.
CREATE TABLE keys.seal_witness (
    only_one smallint PRIMARY KEY CHECK (only_one = 1),
    seal_no bigint NOT NULL CHECK (seal_no > 0),
    hash bytea NOT NULL CHECK (length(hash) = 32),
    sealed_at timestamptz NOT NULL
);
