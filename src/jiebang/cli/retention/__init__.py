"""Commands about what law keeps."""
