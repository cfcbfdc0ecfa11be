SELECT a.account_id, a.facts_version, a.state AS identity_state,
    CASE WHEN a.state <> 'reclaimed' THEN a.changed_at END AS identity_changed_at, a.document_type, a.birth_date,
    a.document_doubt
FROM identity.account a
WHERE a.account_id = ANY ($1::bigint[])
