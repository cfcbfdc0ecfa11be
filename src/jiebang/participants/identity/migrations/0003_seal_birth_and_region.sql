-- Birth date and region stood in clear beside the sealed number, of which they are 14 of the 18 characters. What rules need stays:
-- whether somebody is of age, and the country of a foreigner. The rest stands in `sealed`, with the name and the number.
--
-- region: the country (ISO 3166 alpha-3) of whoever is no resident; a resident's division is in the number alone.
-- birth_date: exact while the age may still matter; of whoever has been of age since the end of their year of birth, the last day
-- of that year, which never makes anybody older than they are. Rows made before keep the exact day where no document number
-- carries it (permits): it stands nowhere else. The border is a constant, so that both data centres come to the same.
ALTER TABLE identity.account DROP CONSTRAINT bound_is_whole;
UPDATE identity.account
SET region = CASE WHEN region ~ '^[A-Z]{3}$' THEN region END,
    birth_date = CASE WHEN birth_date < '2008-01-01' AND document_type NOT IN ('hk_macao_permit', 'taiwan_permit')
        THEN make_date(extract(year FROM birth_date)::integer, 12, 31) ELSE birth_date END
WHERE birth_date IS NOT NULL;
ALTER TABLE identity.account ADD CONSTRAINT bound_is_whole CHECK (CASE
    WHEN state IN ('active', 'pending_reclaim') THEN level > 0 AND document_type IS NOT NULL AND sealed IS NOT NULL
        AND document_index IS NOT NULL AND birth_date IS NOT NULL AND changed_at IS NOT NULL
    WHEN state = 'reclaimed' THEN level = 0 AND document_type IS NULL AND document_index IS NULL AND birth_date IS NULL
        AND region IS NULL AND changed_at IS NOT NULL
    ELSE level = 0 AND document_type IS NULL AND sealed IS NULL AND document_index IS NULL AND birth_date IS NULL
        AND region IS NULL END);
ALTER TABLE identity.account ADD CONSTRAINT region_is_a_country CHECK (region ~ '^[A-Z]{3}$');
