"""One verb a file: what the platform does, with the transactions it owns."""
