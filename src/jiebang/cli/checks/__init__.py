"""What commands show of a check."""
