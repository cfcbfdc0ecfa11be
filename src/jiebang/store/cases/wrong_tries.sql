-- name: wrong_tries
-- How many wrong tries accounts have made since a time and since they last freed their proofs, and the last of them, by proof.
SELECT w.account_id, w.proof, count(*) AS made, max(w.tried_at) AS last_at
FROM platform.account a
JOIN platform.wrong_try w ON w.account_id = a.account_id AND w.account_id = ANY ($1)
    AND w.tried_at > greatest($2::timestamptz, a.unlocked_at)
WHERE a.account_id = ANY ($1::bigint[])
GROUP BY w.account_id, w.proof

-- name: add_wrong_tries
-- Records wrong tries ($4: now), drops those that no window reaches ($6), and returns the accounts whose owners are to be told:
-- at the $7-th try of a window ($5: its begin), once.
WITH input AS (
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS i (account_id, try_id, proof)
), gone AS (
    DELETE FROM platform.wrong_try w WHERE w.account_id = ANY ($1) AND w.tried_at <= $6::timestamptz
), added AS (
    INSERT INTO platform.wrong_try (account_id, tried_at, try_id, proof)
    SELECT i.account_id, $4::timestamptz, i.try_id, i.proof FROM input i
)
UPDATE platform.account a SET told_at = $4
WHERE a.account_id = ANY ($1) AND (a.told_at > $5::timestamptz) IS NOT TRUE
  AND $7::integer <= (SELECT count(*) FROM input i WHERE i.account_id = a.account_id) + (
    SELECT count(*) FROM platform.wrong_try w
    WHERE w.account_id = a.account_id AND w.tried_at > greatest($5, a.unlocked_at))
RETURNING a.account_id

-- name: free_proofs
-- Settles the wrong tries made until now; the next ones are told again.
UPDATE platform.account a SET unlocked_at = $2::timestamptz, told_at = NULL WHERE a.account_id = ANY ($1::bigint[])
