SELECT a.account_id, a.facts_version,
    (SELECT count(*) FROM social.contact c WHERE c.account_id = a.account_id) AS contacts,
    (SELECT count(*) FROM social.message m WHERE m.account_id = a.account_id) AS messages,
    a.email IS NOT NULL AS email_bound
FROM social.account a
WHERE a.account_id = ANY ($1::bigint[])
