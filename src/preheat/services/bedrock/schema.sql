-- `draft` and `document` are the configuration as it was given (JSON); `tags` a JSON object.
CREATE TABLE IF NOT EXISTS bedrock_guardrails (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    tags TEXT NOT NULL,
    last_version INTEGER NOT NULL,
    PRIMARY KEY (account, region, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS bedrock_guardrails_by_name ON bedrock_guardrails (account, region, name);
-- `version` 0 is the DRAFT.
CREATE TABLE IF NOT EXISTS bedrock_guardrail_versions (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    document TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (account, region, id, version)
) WITHOUT ROWID;
-- Client request tokens: the same token with the same request gets the same answer.
CREATE TABLE IF NOT EXISTS bedrock_tokens (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    token TEXT NOT NULL,
    digest TEXT NOT NULL,
    answer TEXT NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (account, region, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bedrock_tokens_by_age ON bedrock_tokens (at);
