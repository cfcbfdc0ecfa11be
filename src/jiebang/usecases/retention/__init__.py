"""The two locks on each data key: the second one put on, keys destroyed in time, and what law keeps read and ended."""
