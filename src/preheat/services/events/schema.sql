-- The default bus has a row only when something about it was set.
CREATE TABLE IF NOT EXISTS events_buses (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    dead_letter TEXT,
    policy TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (account, region, name)
);

-- `anchor` is where a rate counts from, `next_at` when a schedule is due; NULL: never.
CREATE TABLE IF NOT EXISTS events_rules (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    bus TEXT NOT NULL,
    name TEXT NOT NULL,
    pattern TEXT,
    schedule TEXT,
    state TEXT NOT NULL,
    description TEXT,
    role TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    anchor REAL NOT NULL,
    next_at REAL,
    UNIQUE (account, region, bus, name)
);
CREATE INDEX IF NOT EXISTS events_rules_due ON events_rules (next_at) WHERE next_at IS NOT NULL;

-- `target` is the Target of the API as JSON.
CREATE TABLE IF NOT EXISTS events_targets (
    rule INTEGER NOT NULL REFERENCES events_rules (row) ON DELETE CASCADE,
    id TEXT NOT NULL,
    arn TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (rule, id)
);
CREATE INDEX IF NOT EXISTS events_targets_by_arn ON events_targets (arn);

CREATE TABLE IF NOT EXISTS events_archives (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    bus TEXT NOT NULL,
    pattern TEXT,
    description TEXT,
    retention_days INTEGER NOT NULL,
    created REAL NOT NULL,
    UNIQUE (account, region, name)
);

-- `at` is when the event came in.
CREATE TABLE IF NOT EXISTS events_archived (
    row INTEGER PRIMARY KEY,
    archive INTEGER NOT NULL REFERENCES events_archives (row) ON DELETE CASCADE,
    at REAL NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_archived_by_time ON events_archived (archive, at, row);

-- Archives whose managed rule, or its target, was taken away by force.
CREATE TABLE IF NOT EXISTS events_archive_breaks (
    archive INTEGER PRIMARY KEY REFERENCES events_archives (row) ON DELETE CASCADE,
    rule_gone INTEGER NOT NULL
);

-- What was replayed last is (`done_at`, `done_row`).
CREATE TABLE IF NOT EXISTS events_replays (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    archive TEXT NOT NULL,
    bus TEXT NOT NULL,
    filters TEXT NOT NULL,
    description TEXT,
    since REAL NOT NULL,
    until REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    started REAL NOT NULL,
    ended REAL,
    done_at REAL,
    done_row INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, region, name)
);

-- `shown` is what may be told of the parameters, as JSON; the secret ones lie in Secrets Manager.
CREATE TABLE IF NOT EXISTS events_connections (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL UNIQUE,
    description TEXT,
    type TEXT NOT NULL,
    shown TEXT NOT NULL,
    secret TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    authorized REAL,
    UNIQUE (account, region, name)
);

CREATE TABLE IF NOT EXISTS events_destinations (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL UNIQUE,
    description TEXT,
    connection TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    method TEXT NOT NULL,
    rate INTEGER NOT NULL,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    UNIQUE (account, region, name)
);
