"""Commands for the teams that take part: the conformance suite against a service of theirs."""
