CREATE TABLE IF NOT EXISTS logs_groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    class TEXT NOT NULL DEFAULT 'STANDARD',
    created_ms INTEGER NOT NULL,
    retention_days INTEGER,
    protected INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, region, name)
);

CREATE TABLE IF NOT EXISTS logs_streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    first_ms INTEGER,
    last_ms INTEGER,
    ingested_ms INTEGER,
    UNIQUE (group_id, name)
);
CREATE INDEX IF NOT EXISTS logs_streams_by_time ON logs_streams (group_id, last_ms, id);

CREATE TABLE IF NOT EXISTS logs_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    ingested_ms INTEGER NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS logs_events_by_stream ON logs_events (stream_id, at_ms, id);
CREATE INDEX IF NOT EXISTS logs_events_by_group ON logs_events (group_id, at_ms, id);

-- Deleted groups and streams whose events are still to be removed; exactly one of the two is set.
CREATE TABLE IF NOT EXISTS logs_debris (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER,
    stream_id INTEGER
);

-- Metric filters and subscription filters; `settings` is what is special to the kind, in JSON.
CREATE TABLE IF NOT EXISTS logs_filters (
    group_id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    pattern TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    settings TEXT NOT NULL,
    PRIMARY KEY (group_id, kind, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS logs_tags (
    group_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (group_id, key)
) WITHOUT ROWID;
