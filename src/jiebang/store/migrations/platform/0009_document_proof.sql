-- A third method of proof: the document of the identity that a case brings, as a verifier confirmed it.
ALTER TABLE platform.proof DROP CONSTRAINT proof_method_check;
ALTER TABLE platform.proof ADD CONSTRAINT proof_method_check CHECK (method IN ('payment_password', 'sms_code', 'document'));
ALTER TABLE platform.wrong_try DROP CONSTRAINT wrong_try_proof_check;
ALTER TABLE platform.wrong_try ADD CONSTRAINT wrong_try_proof_check
    CHECK (proof IN ('payment_password', 'sms_code', 'document', 'remedy', 'unlock'));
