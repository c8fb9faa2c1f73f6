"""Amazon API Gateway, HTTP APIs (v2)."""
