-- name: insert_proofs
-- The proofs that a new case asks for; existing ones are kept.
INSERT INTO platform.proof (account_id, case_no, method, nonce, expires_at, tries_left)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::smallint[])
ON CONFLICT DO NOTHING

-- name: load_proofs
-- The proofs of the given cases.
SELECT p.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.proof p ON p.account_id = i.account_id AND p.case_no = i.case_no AND p.account_id = ANY ($1::bigint[])
ORDER BY p.account_id, p.case_no, p.method

-- name: lock_proofs
-- The same, locked in key order: attempts on one case are serialised, so that parallel ones cannot share a try.
SELECT p.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.proof p ON p.account_id = i.account_id AND p.case_no = i.case_no AND p.account_id = ANY ($1::bigint[])
ORDER BY p.account_id, p.case_no, p.method
FOR UPDATE OF p

-- name: save_proofs
-- Writes back proofs that were locked and verified.
UPDATE platform.proof p
SET nonce = i.nonce, expires_at = i.expires_at, tries_left = i.tries_left, proven_at = i.proven_at
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bytea[], $5::timestamptz[], $6::smallint[], $7::timestamptz[])
    AS i (account_id, case_no, method, nonce, expires_at, tries_left, proven_at)
WHERE p.account_id = i.account_id AND p.case_no = i.case_no AND p.method = i.method AND p.account_id = ANY ($1::bigint[])
