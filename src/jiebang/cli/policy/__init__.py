"""Commands of the compliance officer."""
