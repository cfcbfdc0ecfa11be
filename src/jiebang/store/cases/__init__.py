"""Cases and what belongs to one: proofs, consents, remedies, kept answers."""
