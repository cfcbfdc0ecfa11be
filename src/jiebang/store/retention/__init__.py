"""The two locks on each data key: what opens it while a name is in use, and what law keeps of it."""
