"""Routes for whoever runs it."""
