SELECT a.account_id, a.facts_version, a.primary_device_id, a.primary_device_since,
    l.abnormal_login_at, l.abnormal_login_items,
    h.authority IS NOT NULL AS legal_hold, h.authority || ' ' || h.contact AS legal_hold_authority,
    r.authority IS NOT NULL AS risk_hold, r.authority || ' ' || r.contact AS risk_hold_contact
FROM security.account a
CROSS JOIN LATERAL (
    SELECT max(l.at) AS abnormal_login_at, jsonb_agg(jsonb_build_object(
        'id', l.login_id::text, 'at', l.at, 'place', l.place, 'device', coalesce(d.model, l.device_id)
    ) ORDER BY l.at DESC)::text AS abnormal_login_items
    FROM security.login l
    LEFT JOIN security.device d ON d.account_id = l.account_id AND d.device_id = l.device_id
    WHERE l.account_id = a.account_id AND l.anomaly IS NOT NULL AND l.confirmed_at IS NULL
) l
LEFT JOIN LATERAL (
    SELECT h.authority, h.contact FROM security.hold h
    WHERE h.account_id = a.account_id AND h.kind = 'legal' AND h.lifted_at IS NULL
    ORDER BY h.placed_at LIMIT 1
) h ON true
LEFT JOIN LATERAL (
    SELECT r.authority, r.contact FROM security.hold r
    WHERE r.account_id = a.account_id AND r.kind = 'risk' AND r.lifted_at IS NULL
    ORDER BY r.placed_at LIMIT 1
) r ON true
WHERE a.account_id = ANY ($1::bigint[])
