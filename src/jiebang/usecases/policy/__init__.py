"""The versions of policy: their life, which is in force, what runs in shadow."""
