"""Amazon S3 Vectors: vector buckets, indexes, vectors, and vector, full-text and hybrid queries."""
