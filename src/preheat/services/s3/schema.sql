CREATE TABLE IF NOT EXISTS s3_buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    created INTEGER NOT NULL,
    notifications TEXT
);

CREATE TABLE IF NOT EXISTS s3_configurations (
    bucket INTEGER NOT NULL REFERENCES s3_buckets (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (bucket, kind)
) WITHOUT ROWID;

-- A body up to 64 KiB lies in `body`, a larger one in the file named `blob`.
CREATE TABLE IF NOT EXISTS s3_objects (
    id INTEGER PRIMARY KEY,
    bucket INTEGER NOT NULL REFERENCES s3_buckets (id),
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,
    attributes TEXT NOT NULL,
    blob TEXT,
    body BLOB
);
CREATE UNIQUE INDEX IF NOT EXISTS s3_objects_by_key ON s3_objects (bucket, key);
CREATE INDEX IF NOT EXISTS s3_objects_by_blob ON s3_objects (blob) WHERE blob IS NOT NULL;

CREATE TABLE IF NOT EXISTS s3_uploads (
    id TEXT PRIMARY KEY,
    bucket INTEGER NOT NULL REFERENCES s3_buckets (id),
    key TEXT NOT NULL,
    initiated INTEGER NOT NULL,
    attributes TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS s3_uploads_by_key ON s3_uploads (bucket, key, id);

CREATE TABLE IF NOT EXISTS s3_parts (
    upload TEXT NOT NULL REFERENCES s3_uploads (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,
    checksum TEXT,
    blob TEXT,
    body BLOB,
    PRIMARY KEY (upload, number)
);
CREATE INDEX IF NOT EXISTS s3_parts_by_blob ON s3_parts (blob) WHERE blob IS NOT NULL;
