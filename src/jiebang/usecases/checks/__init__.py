"""The check: facts read, rules asked, the yearly quota."""
