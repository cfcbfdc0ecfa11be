"""The versions of policy, and which is in force."""
