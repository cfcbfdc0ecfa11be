SELECT a.account_id, a.facts_version, m.open_merchants, m.merchant_items
FROM merchant.account a
CROSS JOIN LATERAL (
    SELECT count(*) AS open_merchants, jsonb_agg(jsonb_build_object(
        'id', m.merchant_no, 'name', m.name
    ) ORDER BY m.merchant_no)::text AS merchant_items
    FROM merchant.merchant_number m
    WHERE m.account_id = a.account_id AND m.closed_at IS NULL
) m
WHERE a.account_id = ANY ($1::bigint[])
