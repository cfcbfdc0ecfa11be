"""What operators do and see, and the chores of the workers behind it. Nothing here changes a decision of a case."""
