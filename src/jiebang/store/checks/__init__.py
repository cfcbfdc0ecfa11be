"""What checks leave behind: their records, and the yearly quota."""
