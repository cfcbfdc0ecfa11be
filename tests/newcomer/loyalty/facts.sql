SELECT a.account_id, a.facts_version, a.points, a.tier AS loyalty_tier, a.redeeming, a.member_since AS loyalty_since,
    c.coupons, c.coupon_items
FROM loyalty.account a
CROSS JOIN LATERAL (
    SELECT count(*) AS coupons, jsonb_agg(jsonb_build_object(
        'id', c.coupon_id::text, 'title', c.title, 'expires_at', c.expires_at
    ) ORDER BY c.expires_at, c.coupon_id)::text AS coupon_items
    FROM loyalty.coupon c
    WHERE c.account_id = a.account_id AND c.epoch = a.epoch
) c
WHERE a.account_id = ANY ($1::bigint[])
