"""Routes for operators: health, readiness, metrics, seal keys."""
