"""Vector stores besides S3 Vectors, each behind `ragkit.store.VectorStore`."""
