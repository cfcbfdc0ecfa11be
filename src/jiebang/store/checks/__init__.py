"""What checks read and record: the platform's facts, the records of checks, the yearly quota."""
