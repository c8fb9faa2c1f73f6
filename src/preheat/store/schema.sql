-- What must happen next: one row per event, written in the transaction that caused it.
CREATE TABLE IF NOT EXISTS due (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    due_at REAL NOT NULL,
    kind TEXT NOT NULL,
    key TEXT,
    payload BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    claimed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS due_by_kind ON due (kind, due_at) WHERE claimed = 0;
CREATE INDEX IF NOT EXISTS due_by_key ON due (kind, key) WHERE key IS NOT NULL;

CREATE TABLE IF NOT EXISTS schema_versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
