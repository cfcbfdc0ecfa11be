"""Pure nouns of the domain: cases, facts, blockers, plans, errors. No I/O, no clock, no chance."""
