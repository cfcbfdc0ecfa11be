"""Stands in for the outside world: people, clearing networks, phones, the super-app. Its processes start fast."""
