"""Routes about checks and the codes of blockers."""
