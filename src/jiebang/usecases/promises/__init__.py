"""Use cases of promises: what was promised in a case, and whether it is kept."""
