SELECT a.account_id, a.facts_version, m.administered_enterprises, m.enterprise_items, m.doubtful_enterprises,
    m.doubtful_enterprise_items, p.open_approvals, p.approval_items, m.legal_person_enterprises, a.api_rights
FROM enterprise.account a
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.role = 'administrator') AS administered_enterprises,
        count(*) FILTER (WHERE m.legal_person) AS legal_person_enterprises,
        (jsonb_agg(jsonb_build_object(
            'id', m.enterprise_id::text, 'name', m.name, 'credit_code', m.credit_code
        ) ORDER BY m.enterprise_id) FILTER (WHERE m.role = 'administrator'))::text AS enterprise_items,
        count(*) FILTER (WHERE m.role = 'administrator' AND m.credit_code_doubt IS NOT NULL) AS doubtful_enterprises,
        (jsonb_agg(jsonb_build_object(
            'id', m.enterprise_id::text, 'name', m.name, 'credit_code', m.credit_code, 'doubt', m.credit_code_doubt
        ) ORDER BY m.enterprise_id) FILTER (WHERE m.role = 'administrator' AND m.credit_code_doubt IS NOT NULL)
        )::text AS doubtful_enterprise_items
    FROM enterprise.membership m
    WHERE m.account_id = a.account_id AND m.left_at IS NULL
) m
CROSS JOIN LATERAL (
    SELECT count(*) AS open_approvals, jsonb_agg(jsonb_build_object(
        'id', p.approval_id::text, 'title', p.title
    ) ORDER BY p.approval_id)::text AS approval_items
    FROM enterprise.approval p
    WHERE p.account_id = a.account_id AND p.epoch = a.epoch AND p.state = 'in_flight'
) p
WHERE a.account_id = ANY ($1::bigint[])
