-- Tables, their indexes and items. A table's id is its number in dynamodb_holdings. The first four bytes of a stored
-- partition key are the CRC-32 of the rest, so a scan goes in hash order and a segment is one range.

CREATE TABLE IF NOT EXISTS dynamodb_tables (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    name TEXT NOT NULL,
    definition BLOB NOT NULL,
    UNIQUE (account, region, name)
);

-- One number space for tables and indexes; live counts of what they hold.
CREATE TABLE IF NOT EXISTS dynamodb_holdings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    items INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS dynamodb_items (
    id INTEGER PRIMARY KEY,
    holding INTEGER NOT NULL,
    pk BLOB NOT NULL,
    sk BLOB NOT NULL,
    size INTEGER NOT NULL,
    expires REAL,
    item BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS dynamodb_items_by_key ON dynamodb_items (holding, pk, sk);
CREATE INDEX IF NOT EXISTS dynamodb_items_by_expiry ON dynamodb_items (expires) WHERE expires IS NOT NULL;

-- A secondary index's entries; `size` is that of the projected item.
CREATE TABLE IF NOT EXISTS dynamodb_entries (
    holding INTEGER NOT NULL,
    pk BLOB NOT NULL,
    sk BLOB NOT NULL,
    base_pk BLOB NOT NULL,
    base_sk BLOB NOT NULL,
    item_id INTEGER NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (holding, pk, sk, base_pk, base_sk)
) WITHOUT ROWID;

-- Long work done in small steps: "drop-items", "drop-entries", "index", "expiry". The key is that of the last item done.
CREATE TABLE IF NOT EXISTS dynamodb_jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    table_id INTEGER NOT NULL,
    holding INTEGER NOT NULL,
    pk BLOB NOT NULL DEFAULT x'',
    sk BLOB NOT NULL DEFAULT x''
);

CREATE TABLE IF NOT EXISTS dynamodb_tokens (
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    token TEXT NOT NULL,
    digest BLOB NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (account, region, token)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS dynamodb_tokens_by_expiry ON dynamodb_tokens (expires);

CREATE TABLE IF NOT EXISTS dynamodb_tags (
    table_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (table_id, key)
) WITHOUT ROWID;
