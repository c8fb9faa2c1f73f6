-- A number is never used again: what is left of a deleted queue must not show up in another.
CREATE TABLE IF NOT EXISTS sqs_queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    created_s INTEGER NOT NULL,
    modified_s INTEGER NOT NULL,
    purged_at REAL,
    sequence INTEGER NOT NULL DEFAULT 0,
    attributes TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (account, region, name)
);

-- Times in epoch milliseconds. A message is receivable when visible_at has come; `receipt` is the nonce of the last
-- receive, part of every receipt handle that still counts.
CREATE TABLE IF NOT EXISTS sqs_messages (
    id INTEGER PRIMARY KEY,
    queue_id INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    receive_count INTEGER NOT NULL,
    receipt INTEGER NOT NULL,
    first_received INTEGER,
    sent_at INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    sender TEXT NOT NULL,
    md5 TEXT NOT NULL,
    group_id TEXT,
    sequence INTEGER,
    dedup_id TEXT,
    trace TEXT,
    source_arn TEXT,
    attributes TEXT,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sqs_by_visibility ON sqs_messages (queue_id, visible_at);
CREATE INDEX IF NOT EXISTS sqs_by_group ON sqs_messages (queue_id, group_id, sequence) WHERE sequence IS NOT NULL;

-- FIFO: one row per message group that has messages; nothing of it is received before available_at.
CREATE TABLE IF NOT EXISTS sqs_groups (
    queue_id INTEGER NOT NULL,
    group_id TEXT NOT NULL,
    available_at INTEGER NOT NULL,
    PRIMARY KEY (queue_id, group_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sqs_groups_ready ON sqs_groups (queue_id, available_at);

CREATE TABLE IF NOT EXISTS sqs_deduplication (
    queue_id INTEGER NOT NULL,
    scope TEXT NOT NULL,
    dedup_id TEXT NOT NULL,
    message_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (queue_id, scope, dedup_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sqs_deduplication_expiry ON sqs_deduplication (expires_at);

-- A tenant's own messages on a standard queue (tenants.py).
CREATE INDEX IF NOT EXISTS sqs_by_tenant ON sqs_messages (queue_id, group_id, visible_at)
    WHERE sequence IS NULL AND group_id IS NOT NULL;

-- Messages that were received before: their visible_at no longer says when they were sent.
CREATE INDEX IF NOT EXISTS sqs_received ON sqs_messages (queue_id, sent_at, visible_at) WHERE receive_count > 0;

-- Receives from FIFO queues that may be repeated. `messages` is a JSON array of row ids.
CREATE TABLE IF NOT EXISTS sqs_attempts (
    queue_id INTEGER NOT NULL,
    attempt_id TEXT NOT NULL,
    receipt INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    messages TEXT NOT NULL,
    PRIMARY KEY (queue_id, attempt_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sqs_attempts_expiry ON sqs_attempts (expires_at);

-- Names that may not be used again yet; times in epoch seconds.
CREATE TABLE IF NOT EXISTS sqs_deleted (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    deleted_at REAL NOT NULL,
    PRIMARY KEY (account, region, name)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS sqs_moves (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    handle TEXT NOT NULL UNIQUE,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    source TEXT NOT NULL,
    destination TEXT,
    rate INTEGER,
    status TEXT NOT NULL,
    moved INTEGER NOT NULL,
    to_move INTEGER NOT NULL,
    failure TEXT,
    started INTEGER NOT NULL,
    due INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS sqs_moves_of ON sqs_moves (account, region, source);
CREATE INDEX IF NOT EXISTS sqs_moves_due ON sqs_moves (due) WHERE status = 'RUNNING';

-- Purged messages that are still to be deleted: those of the queue up to the row `through`, which lies in sqs_messages
-- as a row of queue 0 for so long, so that no later message gets a smaller number.
CREATE TABLE IF NOT EXISTS sqs_leftovers (
    queue_id INTEGER PRIMARY KEY,
    through INTEGER NOT NULL
);

-- Texts that many messages have in common (texts.py), and the messages that lean on them: the rows `first` to `last`.
CREATE TABLE IF NOT EXISTS sqs_texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    head TEXT NOT NULL,
    tail TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS sqs_text_left AFTER UPDATE OF id ON sqs_messages WHEN typeof(NEW.body) = 'blob'
BEGIN
    UPDATE sqs_messages
    SET body = (SELECT head || CAST(substr(NEW.body, 17) AS TEXT) || tail FROM sqs_texts
                WHERE id = CAST(CAST(substr(NEW.body, 1, 16) AS TEXT) AS INTEGER))
    WHERE id = NEW.id;
END;

-- The queues of topics (copies.py), as long as this process lives.
CREATE TEMP TABLE IF NOT EXISTS sqs_audiences (
    audience INTEGER NOT NULL,
    place INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    delay_ms INTEGER NOT NULL,
    ending TEXT NOT NULL,
    part TEXT NOT NULL,
    PRIMARY KEY (audience, place)
) WITHOUT ROWID;
