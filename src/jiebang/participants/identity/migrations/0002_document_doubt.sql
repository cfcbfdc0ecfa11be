-- document_doubt: how the bound document departs from its standard (policy/documents.py); NULL: it does not, or it was bound
-- before that was looked at. Cleared with the document. No constraint ties it to the state: a process of the version before
-- this one confirms a reclaim without knowing the column.
ALTER TABLE identity.account
    ADD COLUMN document_doubt text CHECK (document_doubt IN ('region_unlisted', 'birth_date_partial'));
