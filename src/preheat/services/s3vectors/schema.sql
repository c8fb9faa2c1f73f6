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

-- Indexes whose search structures lie in files too (saved.py). `token` names the copy, "" while the first is written; it
-- holds every change up to `seq` of s3vectors_changes, and `vectors` of them. `logged` counts the changes since.
CREATE TABLE IF NOT EXISTS s3vectors_copies (
    index_id INTEGER PRIMARY KEY,
    token TEXT NOT NULL DEFAULT '',
    seq INTEGER NOT NULL DEFAULT 0,
    vectors INTEGER NOT NULL DEFAULT 0,
    logged INTEGER NOT NULL DEFAULT 0
);

-- Keys written or deleted in an index that has a copy, each with its latest change.
CREATE TABLE IF NOT EXISTS s3vectors_changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    index_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    UNIQUE (index_id, key)
);
