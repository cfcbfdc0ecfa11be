"""The made-up people: the file's format, making it, loading it (docs/population-format.md)."""
