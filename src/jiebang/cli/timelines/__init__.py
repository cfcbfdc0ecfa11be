"""Commands about sealed timelines."""
