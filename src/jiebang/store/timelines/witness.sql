-- The witness: the last seal, in the database of the keys, which is apart from the platform's and in no backup of it.

-- name: read_witness
-- The last seal that any worker made.
SELECT seal_no, hash, sealed_at FROM keys.seal_witness WHERE only_one = 1

-- name: write_witness
-- Remembers a later seal; an earlier one changes nothing.
INSERT INTO keys.seal_witness AS kept (only_one, seal_no, hash, sealed_at) VALUES (1, $1, $2, $3)
ON CONFLICT (only_one) DO UPDATE SET seal_no = excluded.seal_no, hash = excluded.hash, sealed_at = excluded.sealed_at
WHERE kept.seal_no < excluded.seal_no
