CREATE TABLE IF NOT EXISTS s3vectors_buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    sse_type TEXT NOT NULL,
    kms_key_arn TEXT,
    default_mode TEXT NOT NULL,
    policy TEXT,
    UNIQUE (account, region, name)
);

CREATE TABLE IF NOT EXISTS s3vectors_indexes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    bucket_id INTEGER NOT NULL REFERENCES s3vectors_buckets (id),
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    dimension INTEGER NOT NULL,
    metric TEXT NOT NULL,
    mode TEXT NOT NULL,
    non_filterable TEXT NOT NULL,
    text_search TEXT NOT NULL,
    sse_type TEXT,
    kms_key_arn TEXT,
    UNIQUE (bucket_id, name)
);

-- `vector` is little-endian float32, `metadata` a JSON object.
CREATE TABLE IF NOT EXISTS s3vectors_vectors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    vector BLOB NOT NULL,
    metadata TEXT NOT NULL,
    UNIQUE (index_id, key)
);
CREATE INDEX IF NOT EXISTS s3vectors_vectors_in_order ON s3vectors_vectors (index_id, id);

CREATE TABLE IF NOT EXISTS s3vectors_tags (
    arn TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (arn, key)
) WITHOUT ROWID;

-- Removed indexes whose vectors are still to be deleted.
CREATE TABLE IF NOT EXISTS s3vectors_garbage (index_id INTEGER PRIMARY KEY);
