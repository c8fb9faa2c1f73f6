CREATE TABLE IF NOT EXISTS iam_entities (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    account TEXT NOT NULL,
    name TEXT NOT NULL COLLATE NOCASE,
    id TEXT NOT NULL,
    path TEXT NOT NULL,
    created INTEGER NOT NULL,
    trust TEXT,
    description TEXT,
    max_session_s INTEGER,
    boundary TEXT,
    tags TEXT NOT NULL DEFAULT '{}',
    UNIQUE (kind, account, name)
);

CREATE TABLE IF NOT EXISTS iam_inline (
    entity INTEGER NOT NULL REFERENCES iam_entities (row) ON DELETE CASCADE,
    name TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (entity, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS iam_attached (
    entity INTEGER NOT NULL REFERENCES iam_entities (row) ON DELETE CASCADE,
    arn TEXT NOT NULL,
    PRIMARY KEY (entity, arn)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS iam_attached_by_arn ON iam_attached (arn);

CREATE TABLE IF NOT EXISTS iam_members (
    team INTEGER NOT NULL REFERENCES iam_entities (row) ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES iam_entities (row) ON DELETE CASCADE,
    PRIMARY KEY (team, user)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS iam_access_keys (
    id TEXT PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES iam_entities (row) ON DELETE CASCADE,
    secret TEXT NOT NULL,
    status TEXT NOT NULL,
    created INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS iam_policies (
    arn TEXT PRIMARY KEY,
    account TEXT NOT NULL,
    name TEXT NOT NULL,
    id TEXT NOT NULL,
    path TEXT NOT NULL,
    description TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    current INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    tags TEXT NOT NULL DEFAULT '{}'
);

CREATE TABLE IF NOT EXISTS iam_policy_versions (
    arn TEXT NOT NULL REFERENCES iam_policies (arn) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (arn, version)
) WITHOUT ROWID;
