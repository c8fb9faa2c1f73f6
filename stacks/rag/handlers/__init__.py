"""The Lambda functions of the stack."""
