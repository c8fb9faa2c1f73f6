-- `revision` is the row of the definition that stands, `logging` and `tags` are JSON. Moments are epoch seconds everywhere.
CREATE TABLE IF NOT EXISTS states_machines (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    role TEXT NOT NULL,
    revision INTEGER NOT NULL,
    logging TEXT NOT NULL,
    tracing INTEGER NOT NULL,
    tags TEXT NOT NULL,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    UNIQUE (account, region, name)
);

-- Every definition that a machine has had and that an execution may still run.
CREATE TABLE IF NOT EXISTS states_revisions (
    row INTEGER PRIMARY KEY,
    revision_id TEXT NOT NULL,
    definition TEXT NOT NULL,
    created REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS states_activities (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    tags TEXT NOT NULL,
    created REAL NOT NULL,
    PRIMARY KEY (account, region, name)
);

-- `name` of an express execution ends in a UUID, after a colon. `events` is the id of the last history event. `waiter` is
-- the frame of another execution whose task, begun as its attempt `waiter_attempt`, waits for this one's end.
CREATE TABLE IF NOT EXISTS states_executions (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    machine TEXT NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    revision INTEGER NOT NULL,
    role TEXT NOT NULL,
    logging TEXT NOT NULL,
    status TEXT NOT NULL,
    input TEXT NOT NULL,
    output TEXT,
    error TEXT,
    cause TEXT,
    trace TEXT,
    started REAL NOT NULL,
    stopped REAL,
    expires_at REAL,
    events INTEGER NOT NULL DEFAULT 0,
    waiter INTEGER,
    waiter_attempt INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS states_executions_by_name
    ON states_executions (account, region, machine, name) WHERE type = 'STANDARD';
CREATE INDEX IF NOT EXISTS states_executions_by_machine ON states_executions (account, region, machine, started);
CREATE INDEX IF NOT EXISTS states_executions_by_expiry ON states_executions (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS states_executions_by_waiter ON states_executions (waiter) WHERE waiter IS NOT NULL;
CREATE INDEX IF NOT EXISTS states_executions_by_end ON states_executions (type, stopped) WHERE stopped IS NOT NULL;

CREATE TABLE IF NOT EXISTS states_events (
    execution INTEGER NOT NULL,
    id INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    at REAL NOT NULL,
    type TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (execution, id)
) WITHOUT ROWID;

-- Where an execution stands: one row for each thread of control. `scope` leads to its set of states in the definition.
-- `phase`: enter, retry (again), wait, task, activity, join (its branches or iterations run). `due_at`: when something
-- happens by itself. `attempt` counts what was begun, so that what comes late is known. `plan` is a Map's items and how
-- far they are, `item` the item of an iteration.
CREATE TABLE IF NOT EXISTS states_frames (
    row INTEGER PRIMARY KEY,
    execution INTEGER NOT NULL,
    parent INTEGER,
    position INTEGER NOT NULL DEFAULT 0,
    scope TEXT NOT NULL,
    state TEXT NOT NULL,
    phase TEXT NOT NULL,
    data TEXT NOT NULL,
    variables TEXT NOT NULL DEFAULT '{}',
    item TEXT,
    plan TEXT,
    retries TEXT NOT NULL DEFAULT '[]',
    previous INTEGER NOT NULL DEFAULT 0,
    entered INTEGER NOT NULL DEFAULT 0,
    entered_at REAL NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    due_at REAL,
    timeout_at REAL,
    heartbeat_at REAL,
    heartbeat_s REAL,
    started INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    activity TEXT,
    request TEXT
);
CREATE INDEX IF NOT EXISTS states_frames_by_time ON states_frames (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS states_frames_by_execution ON states_frames (execution);
CREATE INDEX IF NOT EXISTS states_frames_by_parent ON states_frames (parent) WHERE parent IS NOT NULL;
CREATE UNIQUE INDEX IF NOT EXISTS states_frames_by_token ON states_frames (token) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS states_frames_by_activity ON states_frames (activity, row) WHERE activity IS NOT NULL;

-- What the branches and iterations of a joining frame gave; NULL: an iteration that failed and was tolerated.
CREATE TABLE IF NOT EXISTS states_results (
    frame INTEGER NOT NULL,
    position INTEGER NOT NULL,
    output TEXT,
    PRIMARY KEY (frame, position)
) WITHOUT ROWID;
