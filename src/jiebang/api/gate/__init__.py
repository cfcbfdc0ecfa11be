"""What stands before every route: who may come in, how many, how fast, and what is recorded of it."""
