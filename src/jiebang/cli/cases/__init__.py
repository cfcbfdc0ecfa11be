"""Commands on a person's behalf: a case, its proofs, its remedies."""
