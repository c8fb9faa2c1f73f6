-- The group "default" has no row unless it was tagged.
CREATE TABLE IF NOT EXISTS scheduler_groups (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (account, region, name)
);

-- `token` is that of the request that made the group, `deleting` since when it is being deleted.
CREATE TABLE IF NOT EXISTS scheduler_group_notes (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    token TEXT,
    deleting REAL,
    PRIMARY KEY (account, region, name)
);

-- `given` are the parameters of the request as JSON, moments in epoch seconds. `due_at` is the scheduled time, `fire_at`
-- that moment or one in its flexible window; NULL: it is never due again.
CREATE TABLE IF NOT EXISTS scheduler_schedules (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    schedule_group TEXT NOT NULL,
    name TEXT NOT NULL,
    given TEXT NOT NULL,
    token TEXT,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    due_at REAL,
    fire_at REAL,
    UNIQUE (account, region, schedule_group, name)
);
CREATE INDEX IF NOT EXISTS scheduler_by_time ON scheduler_schedules (fire_at) WHERE fire_at IS NOT NULL;
