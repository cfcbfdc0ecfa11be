"""Commands of those who run the installation."""
