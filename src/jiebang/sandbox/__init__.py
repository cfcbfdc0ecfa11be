"""Stands in for the outside world: people, clearing networks, phones. Light, so that its processes start at once."""
