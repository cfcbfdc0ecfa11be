"""Commands of the sandbox: made-up people, and the demo."""
