"""What a person does about a case: submit, prove, withdraw, clear a blocker, agree, follow."""
