CREATE TABLE IF NOT EXISTS sns_topics (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    sequence INTEGER NOT NULL DEFAULT 0,
    attributes TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (account, region, name)
);

-- `state` is pending, confirmed or deleted (a deleted one can be restored with its token until `expires_at`). Times in
-- epoch milliseconds; `free_at` is when a throttled endpoint takes its next message.
CREATE TABLE IF NOT EXISTS sns_subscriptions (
    id INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL,
    topic_arn TEXT NOT NULL,
    region TEXT NOT NULL,
    uid TEXT NOT NULL UNIQUE,
    protocol TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    owner TEXT NOT NULL,
    principal TEXT NOT NULL,
    state TEXT NOT NULL,
    authenticated INTEGER NOT NULL DEFAULT 0,
    guarded INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    expires_at INTEGER,
    free_at INTEGER NOT NULL DEFAULT 0,
    attributes TEXT NOT NULL,
    UNIQUE (topic_id, protocol, endpoint)
);
CREATE INDEX IF NOT EXISTS sns_subscriptions_by_owner ON sns_subscriptions (owner, region, id);
CREATE INDEX IF NOT EXISTS sns_subscriptions_by_token ON sns_subscriptions (token) WHERE token IS NOT NULL;
CREATE INDEX IF NOT EXISTS sns_subscriptions_expiry ON sns_subscriptions (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS sns_deduplication (
    topic_id INTEGER NOT NULL,
    scope TEXT NOT NULL,
    dedup_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (topic_id, scope, dedup_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sns_deduplication_expiry ON sns_deduplication (expires_at);

CREATE TABLE IF NOT EXISTS sns_applications (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    platform TEXT NOT NULL,
    name TEXT NOT NULL,
    attributes TEXT NOT NULL,
    UNIQUE (account, region, platform, name)
);

CREATE TABLE IF NOT EXISTS sns_devices (
    id INTEGER PRIMARY KEY,
    application_id INTEGER NOT NULL,
    uid TEXT NOT NULL,
    token TEXT NOT NULL,
    attributes TEXT NOT NULL,
    UNIQUE (application_id, uid),
    UNIQUE (application_id, token)
);

-- Mails, text messages and pushed notifications, which leave this machine nowhere.
CREATE TABLE IF NOT EXISTS sns_outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    source TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS sns_sms_settings (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS sns_signing_key (id INTEGER PRIMARY KEY CHECK (id = 1), sealed BLOB NOT NULL, pem TEXT NOT NULL);
