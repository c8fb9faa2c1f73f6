CREATE TABLE IF NOT EXISTS secrets (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    arn TEXT NOT NULL UNIQUE,
    description TEXT,
    kms_key TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    policy TEXT,
    created REAL NOT NULL,
    changed REAL NOT NULL,
    accessed INTEGER,
    deleted REAL,
    purge_at REAL,
    UNIQUE (account, region, name)
);

-- `value` is sealed; `binary` says whether it was SecretBinary.
CREATE TABLE IF NOT EXISTS secret_versions (
    secret INTEGER NOT NULL REFERENCES secrets (row) ON DELETE CASCADE,
    id TEXT NOT NULL,
    value BLOB NOT NULL,
    binary INTEGER NOT NULL,
    created REAL NOT NULL,
    stages TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (secret, id)
);
