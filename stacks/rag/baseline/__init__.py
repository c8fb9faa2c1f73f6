"""The baseline: long-lived workers that take questions from the queue with the functions' own code (README.md)."""
