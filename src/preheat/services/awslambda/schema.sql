CREATE TABLE IF NOT EXISTS lambda_functions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    reserved INTEGER,
    last_version INTEGER NOT NULL DEFAULT 0,
    tags TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_spent_versions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_versions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    number INTEGER NOT NULL,
    settings TEXT NOT NULL,
    package TEXT NOT NULL,
    revision TEXT NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (account, region, name, version),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_version_states (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    code TEXT NOT NULL,
    PRIMARY KEY (account, region, name, version),
    FOREIGN KEY (account, region, name, version) REFERENCES lambda_versions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_aliases (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    alias TEXT NOT NULL,
    version TEXT NOT NULL,
    description TEXT NOT NULL,
    weights TEXT NOT NULL DEFAULT '{}',
    revision TEXT NOT NULL,
    PRIMARY KEY (account, region, name, alias),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_statements (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    sid TEXT NOT NULL,
    statement TEXT NOT NULL,
    UNIQUE (account, region, name, qualifier, sid),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS lambda_urls (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    url_id TEXT NOT NULL UNIQUE,
    auth_type TEXT NOT NULL,
    invoke_mode TEXT NOT NULL,
    cors TEXT,
    created REAL NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (account, region, name, qualifier),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_event_invoke (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    config TEXT NOT NULL,
    modified REAL NOT NULL,
    PRIMARY KEY (account, region, name, qualifier),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_provisioned (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    count INTEGER NOT NULL,
    token TEXT NOT NULL,
    modified REAL NOT NULL,
    previous TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (account, region, name, qualifier),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_recursion (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    mode TEXT NOT NULL,
    PRIMARY KEY (account, region, name),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_mappings (
    uuid TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    source_arn TEXT NOT NULL,
    function_arn TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    config TEXT NOT NULL,
    modified REAL NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE IF NOT EXISTS lambda_checkpoints (
    uuid TEXT NOT NULL,
    lane TEXT NOT NULL,
    sequence TEXT NOT NULL,
    PRIMARY KEY (uuid, lane)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_layers (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    package TEXT NOT NULL,
    details TEXT NOT NULL,
    created REAL NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (account, region, name, version)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_layer_statements (
    id INTEGER PRIMARY KEY,
    arn TEXT NOT NULL,
    sid TEXT NOT NULL,
    statement TEXT NOT NULL,
    UNIQUE (arn, sid)
);

CREATE TABLE IF NOT EXISTS lambda_policy_revisions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    revision TEXT NOT NULL,
    PRIMARY KEY (account, region, name, version),
    FOREIGN KEY (account, region, name, version) REFERENCES lambda_versions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_runtime_management (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    mode TEXT NOT NULL,
    arn TEXT NOT NULL,
    PRIMARY KEY (account, region, name, version),
    FOREIGN KEY (account, region, name, version) REFERENCES lambda_versions ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_signing_configs (
    arn TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    details TEXT NOT NULL,
    modified REAL NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS lambda_signed_functions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (account, region, name),
    FOREIGN KEY (account, region, name) REFERENCES lambda_functions ON DELETE CASCADE
) WITHOUT ROWID;
