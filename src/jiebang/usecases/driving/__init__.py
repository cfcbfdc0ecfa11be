"""The runners of the two drivers in `saga`: of batches of cases, and of a recovery after a restore."""
