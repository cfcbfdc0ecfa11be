-- doubt: how the card's number, of which four digits are kept, departs from its standard (policy/cards.py); NULL: it does not,
-- or the card was bound before that was looked at.
ALTER TABLE wallet.bank_card ADD COLUMN doubt text CHECK (doubt IN ('check_character'));
