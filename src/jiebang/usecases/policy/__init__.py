"""Packs: their life cycle, which is in force, what runs in shadow."""
