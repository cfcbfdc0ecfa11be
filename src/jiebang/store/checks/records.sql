-- name: insert_records
-- The records of a batch of checks. A case keeps the first of each step: what was decided is not decided again.
INSERT INTO platform.check_record (account_id, case_no, step, at, pack, outcome, sealed)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::bytea[])
ON CONFLICT DO NOTHING

-- name: load_records
-- The records of the given cases, the check that opened each first.
SELECT r.* FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.check_record r ON r.account_id = i.account_id AND r.case_no = i.case_no AND r.account_id = ANY ($1::bigint[])
ORDER BY r.account_id, r.case_no, r.step
