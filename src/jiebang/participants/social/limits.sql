SELECT a.account_id, l.name, l.value, l.used, NULL::timestamptz AS until
FROM social.account a
CROSS JOIN LATERAL (
    SELECT 'moments' AS name, a.moments_per_day::bigint AS value, (
        SELECT count(*) FROM social.moment m
        WHERE m.account_id = a.account_id
          AND m.posted_at >= ($2::timestamptz AT TIME ZONE 'Asia/Shanghai')::date::timestamp AT TIME ZONE 'Asia/Shanghai'
    ) AS used
    WHERE a.moments_per_day IS NOT NULL
    UNION ALL
    SELECT 'friend_requests', NULL, NULL WHERE a.friend_requests_blocked
) l
WHERE a.account_id = ANY ($1::bigint[])
