"""The pure Try-Confirm/Cancel decision: what a case does next, and what a participant's fence admits."""
