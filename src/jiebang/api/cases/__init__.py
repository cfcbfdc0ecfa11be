"""Routes about one case: submitting, proving, following, withdrawing, remedies, consents."""
