SELECT a.account_id, a.facts_version, a.game_guard
FROM gaming.account a
WHERE a.account_id = ANY ($1::bigint[])
