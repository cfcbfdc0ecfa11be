"""What the platform does, one verb a file, with the transactions that each owns."""
