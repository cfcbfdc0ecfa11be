-- The records that a seal holds: hashes of what stands in the platform's database beside the timelines.
--
-- A record is the SHA-256 of a JSON array as PostgreSQL writes it (jsonb). Times are seconds since 1970, bytes hexadecimal.
-- Nothing may stand in it that can change after a case was sealed; tests/store/test_sealed_columns.py changes every column of
-- every table and names those that stay out, each with its reason. What is in it cannot change its form: seals stand.

-- name: case_records
-- The record of each of the given cases: of one that ended ($3) all; of a live one, what is the same from its opening on.
-- Consents, remedies and step-ups are an account's: a case's record holds those that stood before it was opened.
SELECT c.account_id, c.case_no,
    sha256(convert_to(CASE WHEN NOT $3::boolean THEN o.opening ELSE jsonb_build_array(o.opening,
        c.state, c.marks, c.versions, c.wallet_version, c.revision, c.attempt, extract(epoch FROM c.due_at),
        extract(epoch FROM c.rests_until), extract(epoch FROM c.deadline), extract(epoch FROM c.withdraw_at),
        extract(epoch FROM c.ended_at), c.reason,
        (SELECT jsonb_agg(jsonb_build_array(p.method, encode(p.nonce, 'hex'),
                extract(epoch FROM p.expires_at), p.tries_left, extract(epoch FROM p.proven_at)) ORDER BY p.method)
            FROM platform.proof p
            WHERE p.account_id = c.account_id AND p.case_no = c.case_no AND c.wallet_version IS NOT NULL),
        (SELECT jsonb_agg(jsonb_build_array(r.step, extract(epoch FROM r.at), r.pack, r.outcome,
                encode(sha256(r.sealed), 'hex')) ORDER BY r.step)
            FROM platform.check_record r WHERE r.account_id = c.account_id AND r.case_no = c.case_no),
        (SELECT jsonb_agg(jsonb_build_array(n.consent_id, n.code, n.what, n.case_no, extract(epoch FROM n.given_at),
                CASE WHEN n.withdrawn_at <= coalesce(c.withdraw_at, c.created_at) THEN extract(epoch FROM n.withdrawn_at) END)
                ORDER BY n.consent_id)
            FROM platform.consent n WHERE n.account_id = c.account_id AND n.given_at <= c.created_at),
        (SELECT jsonb_agg(jsonb_build_array(m.remedy_id, m.code, m.action, extract(epoch FROM m.begun_at),
                extract(epoch FROM m.done_at), m.outcome) ORDER BY m.remedy_id)
            FROM platform.remedy m WHERE m.account_id = c.account_id AND m.done_at <= c.created_at),
        (SELECT jsonb_agg(jsonb_build_array(u.remedy_id, u.code, u.kind, u.what, encode(u.nonce, 'hex'), u.device_id, u.wrong,
                extract(epoch FROM u.created_at), extract(epoch FROM u.expires_at), extract(epoch FROM u.used_at),
                extract(epoch FROM u.ended_at), u.by_service) ORDER BY u.remedy_id)
            FROM platform.step_up u WHERE u.account_id = c.account_id AND u.used_at <= c.created_at),
        (SELECT jsonb_agg(jsonb_build_array(q.year, q.slot, extract(epoch FROM q.claimed_at)) ORDER BY q.year, q.slot)
            FROM platform.identity_quota q WHERE q.document_index = c.document_index AND q.account_id = c.account_id
                AND q.case_no = c.case_no AND c.state = 'done'),
        (SELECT jsonb_agg(jsonb_build_array(x.message_id, x.bucket, x.template, x.params,
                extract(epoch FROM x.created_at)) ORDER BY x.message_id)
            FROM platform.outbox x WHERE x.account_id = c.account_id AND x.case_no = c.case_no
                AND (x.created_at <= c.created_at OR x.message_id = encode(substring(c.head FOR 16), 'hex')::uuid))
        )::text END, 'UTF8')) AS record
FROM unnest($1::bigint[], $2::bigint[]) AS i (account_id, case_no)
JOIN platform.cases c ON c.account_id = i.account_id AND c.case_no = i.case_no AND c.account_id = ANY ($1::bigint[])
CROSS JOIN LATERAL (
    SELECT jsonb_build_array('jiebang-record-2', c.account_id, c.case_no, c.bucket, c.kind, c.plan,
        extract(epoch FROM c.created_at), c.device_id, c.by_service, encode(c.document_index, 'hex'),
        (SELECT jsonb_agg(jsonb_build_array(extract(epoch FROM r.at), r.pack, r.outcome, encode(sha256(r.sealed), 'hex')))
            FROM platform.check_record r
            WHERE r.account_id = c.account_id AND r.case_no = c.case_no AND r.step = 'submit'))::text AS opening
) o

-- name: registers
-- What the installation itself decided until a time: a hash a table. Rows that may still change are not among them.
SELECT 'policy_pack' AS name, sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(p.pack, p.name, p.version,
        encode(sha256(convert_to(p.text, 'UTF8')), 'hex'), encode(p.sha256, 'hex'), p.added_by, extract(epoch FROM p.added_at))
        ORDER BY p.pack), '[]')::text, 'UTF8')) AS hash
FROM platform.policy_pack p WHERE p.added_at <= $1
UNION ALL
SELECT 'policy_activation', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(a.activation_no, a.pack, a.action,
        a.proposed_by, extract(epoch FROM a.proposed_at), a.approved_by, extract(epoch FROM a.approved_at),
        extract(epoch FROM a.in_force_since), extract(epoch FROM a.lapsed_at), a.replaces)
        ORDER BY a.activation_no), '[]')::text, 'UTF8'))
FROM platform.policy_activation a WHERE coalesce(a.in_force_since, a.lapsed_at) <= $1
UNION ALL
SELECT 'recovery', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(r.recovery_no, r.restored, r.begun_by,
        extract(epoch FROM r.begun_at), extract(epoch FROM r.ended_at), r.found)
        ORDER BY r.recovery_no), '[]')::text, 'UTF8'))
FROM platform.recovery r WHERE r.ended_at <= $1
UNION ALL
SELECT 'participant_outage', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(o.participant,
        extract(epoch FROM o.out_since), o.reason, o.out_by, extract(epoch FROM o.back_at), o.back_by)
        ORDER BY o.participant, o.out_since), '[]')::text, 'UTF8'))
FROM platform.participant_outage o WHERE o.back_at <= $1
UNION ALL
SELECT 'plan_correction', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(x.correction_no, x.pack, x.kind, x.participant,
        x.effect, x.value, x.was, x.why, x.proposed_by, extract(epoch FROM x.proposed_at), x.approved_by,
        extract(epoch FROM x.approved_at), extract(epoch FROM x.lapsed_at))
        ORDER BY x.correction_no), '[]')::text, 'UTF8'))
FROM platform.plan_correction x WHERE coalesce(x.approved_at, x.lapsed_at) <= $1
UNION ALL
SELECT 'key_fingerprint', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(f.name, extract(epoch FROM f.recorded_at),
        encode(f.fingerprint, 'hex')) ORDER BY f.name, f.recorded_at), '[]')::text, 'UTF8'))
FROM platform.key_fingerprint f WHERE f.recorded_at <= $1
UNION ALL
SELECT 'retention_act', sha256(convert_to(coalesce(jsonb_agg(jsonb_build_array(a.account_id, a.act_id, a.act, a.purpose, a.done_by,
        extract(epoch FROM a.at)) ORDER BY a.account_id, a.act_id), '[]')::text, 'UTF8'))
FROM platform.retention_act a WHERE a.at <= $1

-- name: numbers_set_back
-- Accounts whose last case number lies below one that was given: the number would be given again.
SELECT DISTINCT c.account_id FROM platform.cases c
LEFT JOIN platform.account a ON a.account_id = c.account_id AND a.account_id > $1 AND a.account_id <= $2
WHERE c.account_id > $1 AND c.account_id <= $2 AND c.case_no > coalesce(a.last_case_no, 0)
ORDER BY c.account_id LIMIT $3

-- name: policy_in_force
-- Whether the version in force is the one that was activated.
SELECT NOT EXISTS (
    SELECT FROM platform.policy_state s
    WHERE s.only_one = 1 AND NOT EXISTS (
        SELECT FROM platform.policy_activation a
        WHERE a.activation_no = s.activation_no AND a.pack = s.pack AND a.in_force_since = s.in_force_since)
)
