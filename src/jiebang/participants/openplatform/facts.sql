SELECT a.account_id, a.facts_version, g.grants, g.grant_items, g.payment_grants, g.payment_grant_items, m.mini_programs, m.mini_program_items,
    o.official_accounts, o.official_account_items, p.apps, p.app_items, p.led_apps, p.led_app_items,
    nullif(a.api_quota_level, 'none') AS api_quota_level
FROM openplatform.account a
CROSS JOIN LATERAL (
    SELECT count(*) AS grants, jsonb_agg(jsonb_build_object(
        'id', g.grant_id::text, 'app', g.app_name, 'scopes', array_to_string(g.scopes, ', ')
    ) ORDER BY g.grant_id)::text AS grant_items,
        count(*) FILTER (WHERE 'pay' = ANY (g.scopes)) AS payment_grants,
        (jsonb_agg(jsonb_build_object('id', g.grant_id::text, 'app', g.app_name) ORDER BY g.grant_id)
            FILTER (WHERE 'pay' = ANY (g.scopes)))::text AS payment_grant_items
    FROM openplatform.oauth_grant g
    WHERE g.account_id = a.account_id AND g.epoch = a.epoch AND g.revoked_at IS NULL
) g
CROSS JOIN LATERAL (
    SELECT count(*) AS mini_programs, jsonb_agg(jsonb_build_object(
        'id', m.program_id, 'name', m.name
    ) ORDER BY m.program_id)::text AS mini_program_items
    FROM openplatform.mini_program m
    WHERE m.account_id = a.account_id AND m.state = 'published'
) m
CROSS JOIN LATERAL (
    SELECT count(*) AS official_accounts, jsonb_agg(jsonb_build_object(
        'id', o.official_id, 'name', o.name
    ) ORDER BY o.official_id)::text AS official_account_items
    FROM openplatform.official_account o
    WHERE o.account_id = a.account_id AND o.role = 'administrator' AND o.left_at IS NULL
) o
CROSS JOIN LATERAL (
    SELECT count(*) AS apps, count(*) FILTER (WHERE p.technical_lead) AS led_apps,
        jsonb_agg(p.item ORDER BY p.app_id)::text AS app_items,
        (jsonb_agg(p.item ORDER BY p.app_id) FILTER (WHERE p.technical_lead))::text AS led_app_items
    FROM (
        SELECT p.app_id, p.technical_lead, jsonb_build_object('id', p.app_id, 'name', p.name) AS item
        FROM openplatform.app p
        WHERE p.account_id = a.account_id AND p.closed_at IS NULL
    ) p
) p
WHERE a.account_id = ANY ($1::bigint[])
