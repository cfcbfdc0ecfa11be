-- credit_code_doubt: how the credit code departs from its standard (policy/companies.py); NULL: it does not, or the membership
-- came before that was looked at.
ALTER TABLE enterprise.membership
    ADD COLUMN credit_code_doubt text CHECK (credit_code_doubt IN ('check_character', 'region_unlisted'));
