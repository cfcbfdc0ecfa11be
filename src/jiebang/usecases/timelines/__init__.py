"""Timelines: sealing them, and the audit of seals and chains."""
