"""The HTTP API: routes, shapes, auth, problems."""
