"""What drives cases to their end: workers' rounds, and recovery after a restore."""
