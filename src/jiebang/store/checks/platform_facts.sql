-- name: read_accounts
-- Those of the given accounts that exist, each with its live case and standing consents, and the participants out of service:
-- all that a check needs of the platform's own database, in one query.
SELECT a.account_id, c.case_no, s.consents,
    (SELECT jsonb_object_agg(participant, out_since)::text FROM platform.participant_outage WHERE back_at IS NULL) AS out
FROM platform.account a
LEFT JOIN platform.cases c ON c.account_id = a.account_id AND c.account_id = ANY ($1) AND c.ended_at IS NULL
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('code', s.code, 'what', s.what, 'case_no', s.case_no, 'at', s.given_at))::text AS consents
    FROM platform.consent s WHERE s.account_id = a.account_id AND s.withdrawn_at IS NULL
) s ON true
WHERE a.account_id = ANY ($1::bigint[])
