CREATE TABLE IF NOT EXISTS ssm_parameters (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}',
    UNIQUE (account, region, name)
);

-- `value` is sealed when the type is SecureString, UTF-8 otherwise.
CREATE TABLE IF NOT EXISTS ssm_versions (
    parameter INTEGER NOT NULL REFERENCES ssm_parameters (row) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    value BLOB NOT NULL,
    description TEXT,
    pattern TEXT,
    tier TEXT NOT NULL,
    key_id TEXT,
    modified REAL NOT NULL,
    user TEXT NOT NULL,
    labels TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (parameter, version)
) WITHOUT ROWID;
