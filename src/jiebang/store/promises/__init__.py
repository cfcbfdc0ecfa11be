"""What the platform's database tells of promises: the cases that are done, and the notices about them."""
