CREATE TABLE IF NOT EXISTS cfn_stacks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    phase TEXT,
    created_at REAL NOT NULL,
    updated_at REAL,
    deleted_at REAL,
    spec TEXT,
    previous TEXT,
    options TEXT NOT NULL DEFAULT '{}',
    outputs TEXT NOT NULL DEFAULT '[]',
    principal TEXT NOT NULL DEFAULT '{}',
    termination_protection INTEGER NOT NULL DEFAULT 0,
    change_set_id TEXT,
    deadline REAL
);
CREATE INDEX IF NOT EXISTS cfn_stacks_by_name ON cfn_stacks (account, region, name);
CREATE INDEX IF NOT EXISTS cfn_stacks_by_phase ON cfn_stacks (phase) WHERE phase IS NOT NULL;

CREATE TABLE IF NOT EXISTS cfn_resources (
    stack_id TEXT NOT NULL,
    logical_id TEXT NOT NULL,
    type TEXT NOT NULL,
    physical_id TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    updated_at REAL NOT NULL,
    properties TEXT NOT NULL DEFAULT '{}',
    attributes TEXT NOT NULL DEFAULT '{}',
    depends TEXT NOT NULL DEFAULT '[]',
    before TEXT,
    PRIMARY KEY (stack_id, logical_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cfn_resources_by_physical ON cfn_resources (physical_id);

CREATE TABLE IF NOT EXISTS cfn_steps (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    stack_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    logical_id TEXT NOT NULL,
    action TEXT NOT NULL,
    waits_for TEXT NOT NULL DEFAULT '[]',
    status TEXT NOT NULL DEFAULT 'pending',
    journal TEXT NOT NULL DEFAULT '[]',
    issued INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    wake_at REAL,
    doc TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS cfn_steps_by_stack ON cfn_steps (stack_id, phase);

CREATE TABLE IF NOT EXISTS cfn_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    stack_id TEXT NOT NULL,
    stack_name TEXT NOT NULL,
    at REAL NOT NULL,
    logical_id TEXT NOT NULL,
    physical_id TEXT NOT NULL DEFAULT '',
    type TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    properties TEXT NOT NULL DEFAULT '',
    token TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS cfn_events_by_stack ON cfn_events (stack_id, seq);

CREATE TABLE IF NOT EXISTS cfn_change_sets (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    stack_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    execution_status TEXT NOT NULL,
    created_at REAL NOT NULL,
    description TEXT NOT NULL DEFAULT '',
    spec TEXT NOT NULL,
    changes TEXT NOT NULL DEFAULT '[]',
    options TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX IF NOT EXISTS cfn_change_sets_by_stack ON cfn_change_sets (stack_id, name);

CREATE TABLE IF NOT EXISTS cfn_exports (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    stack_id TEXT NOT NULL,
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS cfn_imports (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    stack_id TEXT NOT NULL,
    PRIMARY KEY (account, region, name, stack_id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS cfn_responses (
    token TEXT PRIMARY KEY,
    step_seq INTEGER NOT NULL,
    body TEXT
);
