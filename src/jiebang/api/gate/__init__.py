"""What every request passes before its route: admission, limits, authentication, logging."""
