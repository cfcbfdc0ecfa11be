-- Movements of money, for `money.py`. Every statement that joins repeats its accounts as `= ANY ($1)`: a condition on the key
-- that the planner uses whatever the statistics say (tests/store/test_plans.py).

-- name: lock
-- Rows are locked in key order, as Try, Confirm and Cancel update them, which rules out deadlocks.
SELECT account_id FROM wallet.account WHERE account_id = ANY ($1::bigint[]) ORDER BY account_id FOR UPDATE

-- name: purses
-- The wallets, read after the lock, so that the values are those that the lock protects. $2: today in Shanghai.
SELECT a.account_id, a.case_op = 'tried' AS tried, a.state = 'closed' AS closed, a.balance_fen, a.open_entries,
    (SELECT least(coalesce(sum(f.amount_fen), 0), 9223372036854775807)::bigint FROM wallet.freeze f
     WHERE f.account_id = a.account_id AND f.lifted_at IS NULL) AS frozen_fen,
    a.receive_limit_fen, CASE WHEN a.received_on = $2::date THEN a.received_fen ELSE 0 END AS received_fen,
    a.cash_out_paused_until
FROM wallet.account a
WHERE a.account_id = ANY ($1::bigint[])

-- name: entries
-- The ledger entries of the given keys that exist.
SELECT e.account_id, e.entry_id, e.kind, e.counterparty_id, e.amount_fen, e.state
FROM unnest($1::bigint[], $2::uuid[]) AS i (account_id, entry_id)
JOIN wallet.entry e ON e.account_id = i.account_id AND e.entry_id = i.entry_id AND e.account_id = ANY ($1::bigint[])

-- name: packets
-- The given accounts' red packets that are unclaimed, or that one of the given actions ended: the answer of a repeat.
SELECT p.account_id, p.packet_id, p.amount_fen, p.expires_at > $3::timestamptz AS valid, p.state = 'claimed' AS claimed, p.ended_by
FROM wallet.red_packet p
WHERE p.account_id = ANY ($1::bigint[]) AND (p.state = 'unclaimed' OR p.ended_by = ANY ($2::uuid[]))

-- name: contracts
-- The given accounts' auto-debit contracts that are live, or that one of the given actions ended: the answer of a repeat.
SELECT d.account_id, d.contract_id, d.ended_by
FROM wallet.autodebit_contract d
JOIN wallet.account a ON a.account_id = d.account_id AND a.account_id = ANY ($1::bigint[])
WHERE d.account_id = ANY ($1::bigint[])
  AND (d.epoch = a.epoch AND d.ended_at IS NULL OR d.ended_by = ANY ($2::uuid[]))

-- name: save_purses
-- Every movement of money raises facts_version: it changes facts that can block.
UPDATE wallet.account a
SET facts_version = a.facts_version + 1, balance_fen = i.balance_fen, open_entries = i.open_entries,
    received_fen = i.received_fen, received_on = $5::date
FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::bigint[])
    AS i (account_id, balance_fen, open_entries, received_fen)
WHERE a.account_id = i.account_id AND a.account_id = ANY ($1::bigint[])

-- name: insert_entries
-- New entries, pending or completed immediately ($8: now).
INSERT INTO wallet.entry (account_id, entry_id, kind, counterparty_id, title, amount_fen, state, made_at, ended_at)
SELECT i.account_id, i.entry_id, i.kind, i.counterparty_id, i.title, i.amount_fen, i.state, $8::timestamptz,
    CASE WHEN i.state <> 'pending' THEN $8::timestamptz END
FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::text[])
    AS i (account_id, entry_id, kind, counterparty_id, title, amount_fen, state)

-- name: end_entries
-- The second step of transfers, read as pending under the same lock.
UPDATE wallet.entry e SET state = i.state, ended_at = $4::timestamptz
FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS i (account_id, entry_id, state)
WHERE e.account_id = i.account_id AND e.entry_id = i.entry_id AND e.account_id = ANY ($1::bigint[])

-- name: end_packets
-- Red packets claimed by an entry, or returned because they had expired or were given back.
UPDATE wallet.red_packet p
SET state = CASE WHEN i.claimed THEN 'claimed' ELSE 'returned' END, entry_id = CASE WHEN i.claimed THEN i.ended_by END,
    ended_by = i.ended_by, ended_at = $5::timestamptz
FROM unnest($1::bigint[], $2::bigint[], $3::boolean[], $4::uuid[]) AS i (account_id, packet_id, claimed, ended_by)
WHERE p.account_id = i.account_id AND p.packet_id = i.packet_id AND p.account_id = ANY ($1::bigint[])

-- name: end_contracts
-- Auto-debit contracts of locked wallets, read as live under the same lock.
UPDATE wallet.autodebit_contract d SET ended_at = $4::timestamptz, ended_by = i.ended_by
FROM unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS i (account_id, contract_id, ended_by)
WHERE d.account_id = i.account_id AND d.contract_id = i.contract_id AND d.account_id = ANY ($1::bigint[])

-- name: left_behind
-- Transfers without their second step, the oldest first, by their sender's entry.
SELECT e.entry_id, e.account_id, e.counterparty_id, -e.amount_fen AS amount_fen, e.title
FROM wallet.entry e
WHERE e.state = 'pending' AND e.kind = 'transfer' AND e.amount_fen < 0 AND e.made_at < $1
ORDER BY e.made_at
LIMIT $2

-- name: passwords
-- Salt and hash of payment passwords, where one is set.
SELECT a.account_id, a.password_salt, a.password_hash
FROM wallet.account a
WHERE a.account_id = ANY ($1::bigint[]) AND a.password_hash IS NOT NULL

-- name: audit
-- Balance and number of open entries, compared with the sums of the ledger.
SELECT a.account_id, a.balance_fen, a.balance_fen = l.balance_fen AND a.open_entries = l.open_entries AS right
FROM wallet.account a
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount_fen) FILTER (WHERE e.state = 'completed' OR e.state = 'pending' AND e.amount_fen < 0), 0)
            AS balance_fen,
        count(*) FILTER (WHERE e.state = 'pending') AS open_entries
    FROM wallet.entry e WHERE e.account_id = a.account_id
) l
WHERE a.account_id = ANY ($1::bigint[])

-- name: transfers
-- Both sides of all transfers that had an effect, in one snapshot; as numeric, which no sum overflows.
SELECT coalesce(sum(e.amount_fen), 0) FROM wallet.entry e WHERE e.kind = 'transfer' AND e.state <> 'returned'
