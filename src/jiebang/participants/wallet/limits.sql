SELECT a.account_id, l.name, l.value, l.used, l.until
FROM wallet.account a
CROSS JOIN LATERAL (
    SELECT 'receiving' AS name, a.receive_limit_fen AS value,
        CASE WHEN a.received_on = ($2::timestamptz AT TIME ZONE 'Asia/Shanghai')::date THEN a.received_fen ELSE 0 END AS used,
        NULL::timestamptz AS until
    WHERE a.receive_limit_fen IS NOT NULL
    UNION ALL
    SELECT 'cash_out', NULL, NULL, a.cash_out_paused_until WHERE a.cash_out_paused_until > $2::timestamptz
) l
WHERE a.account_id = ANY ($1::bigint[])
