"""The web console: one static page, and views that call the same operations as every client."""
