"""Seals on timelines, their keys, and the anchor outside the database."""
