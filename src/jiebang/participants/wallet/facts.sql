SELECT a.account_id, a.facts_version, a.balance_fen,
    a.open_entries AS open_transactions, t.open_transaction_items,
    p.unclaimed_red_packets, p.unclaimed_red_packet_items,
    (SELECT least(coalesce(sum(r.owed_fen), 0), 9223372036854775807)::bigint FROM wallet.arrears r
     WHERE r.account_id = a.account_id AND r.repaid_at IS NULL) AS arrears_fen,
    f.frozen_fen, f.freeze_items, d.autodebit_contracts, d.autodebit_items, c.open_credit, c.credit_items,
    a.receive_limit_fen IS NOT NULL AS receive_limited, coalesce(a.receive_limit_fen, 0) AS receive_limit_fen,
    k.bank_cards, k.bank_card_items, k.doubtful_bank_cards, k.doubtful_bank_card_items,
    a.state = 'closed' AS payment_closed
FROM wallet.account a
CROSS JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object(
        'id', e.entry_id, 'title', e.title, 'amount_fen', e.amount_fen, 'expected_at', e.expected_at
    ) ORDER BY e.made_at, e.entry_id)::text AS open_transaction_items
    FROM wallet.entry e
    WHERE e.account_id = a.account_id AND e.state = 'pending'
) t
CROSS JOIN LATERAL (
    SELECT count(*) AS unclaimed_red_packets, jsonb_agg(jsonb_build_object(
        'id', p.packet_id::text, 'sender', p.sender, 'amount_fen', p.amount_fen, 'expires_at', p.expires_at
    ) ORDER BY p.expires_at, p.packet_id)::text AS unclaimed_red_packet_items
    FROM wallet.red_packet p
    WHERE p.account_id = a.account_id AND p.state = 'unclaimed'
) p
CROSS JOIN LATERAL (
    SELECT least(coalesce(sum(f.amount_fen), 0), 9223372036854775807)::bigint AS frozen_fen, jsonb_agg(jsonb_build_object(
        'id', f.freeze_id::text, 'authority', f.authority, 'amount_fen', f.amount_fen, 'contact', f.contact
    ) ORDER BY f.freeze_id)::text AS freeze_items
    FROM wallet.freeze f
    WHERE f.account_id = a.account_id AND f.lifted_at IS NULL
) f
CROSS JOIN LATERAL (
    SELECT count(*) AS autodebit_contracts, jsonb_agg(jsonb_build_object(
        'id', d.contract_id::text, 'merchant', d.merchant,
        'next_charge_at', d.next_charge_at, 'amount_fen', d.amount_fen
    ) ORDER BY d.next_charge_at, d.contract_id)::text AS autodebit_items
    FROM wallet.autodebit_contract d
    WHERE d.account_id = a.account_id AND d.epoch = a.epoch AND d.ended_at IS NULL
) d
CROSS JOIN LATERAL (
    SELECT count(*) AS open_credit, jsonb_agg(jsonb_build_object(
        'id', c.product_id::text, 'product', c.product, 'owed_fen', c.owed_fen
    ) ORDER BY c.product_id)::text AS credit_items
    FROM wallet.credit_product c
    WHERE c.account_id = a.account_id AND c.closed_at IS NULL
) c
CROSS JOIN LATERAL (
    SELECT count(*) AS bank_cards, jsonb_agg(jsonb_build_object(
        'id', k.card_id::text, 'bank', k.bank, 'tail', k.tail
    ) ORDER BY k.card_id)::text AS bank_card_items,
    count(*) FILTER (WHERE k.doubt IS NOT NULL) AS doubtful_bank_cards,
    (jsonb_agg(jsonb_build_object(
        'id', k.card_id::text, 'bank', k.bank, 'tail', k.tail, 'doubt', k.doubt
    ) ORDER BY k.card_id) FILTER (WHERE k.doubt IS NOT NULL))::text AS doubtful_bank_card_items
    FROM wallet.bank_card k
    WHERE k.account_id = a.account_id AND k.epoch = a.epoch AND k.unbound_at IS NULL
) k
WHERE a.account_id = ANY ($1::bigint[])
