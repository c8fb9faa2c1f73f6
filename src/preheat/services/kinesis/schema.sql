CREATE TABLE IF NOT EXISTS kinesis_streams (
  row INTEGER PRIMARY KEY,
  account TEXT NOT NULL,
  region TEXT NOT NULL,
  name TEXT NOT NULL,
  created REAL NOT NULL,
  active_at REAL NOT NULL,
  mode TEXT NOT NULL,
  retention_h INTEGER NOT NULL,
  most_kib INTEGER NOT NULL,
  key_id TEXT,
  metrics TEXT NOT NULL,
  tags TEXT NOT NULL,
  UNIQUE (account, region, name)
);

CREATE TABLE IF NOT EXISTS kinesis_shards (
  stream INTEGER NOT NULL,
  number INTEGER NOT NULL,
  first_hash TEXT NOT NULL,
  last_hash TEXT NOT NULL,
  parent INTEGER,
  adjacent INTEGER,
  opened_at REAL NOT NULL,
  starts INTEGER NOT NULL,
  closed_at REAL,
  ends INTEGER,
  PRIMARY KEY (stream, number)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS kinesis_counters (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS kinesis_records (
  stream INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  arrived_ms INTEGER NOT NULL,
  partition_key TEXT NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (stream, shard, sequence)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS kinesis_debris (
  stream INTEGER PRIMARY KEY
);
