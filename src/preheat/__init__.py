"""Preheat: the serverless RAG architecture of AWS, run for real on one machine."""

__version__ = "0.1.0"
