-- One metric: `dimensions` is a JSON list of [name, value] pairs sorted by name.
CREATE TABLE IF NOT EXISTS cloudwatch_series (
    row INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    region TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    dimensions TEXT NOT NULL,
    unit TEXT NOT NULL,
    seen REAL NOT NULL,
    UNIQUE (account, region, namespace, name, dimensions, unit)
);

-- The statistics of `width` seconds (1 or 60) from `start`; `distribution` is JSON: how often each value came.
CREATE TABLE IF NOT EXISTS cloudwatch_samples (
    series INTEGER NOT NULL REFERENCES cloudwatch_series (row) ON DELETE CASCADE,
    start INTEGER NOT NULL,
    width INTEGER NOT NULL,
    count REAL NOT NULL,
    total REAL NOT NULL,
    minimum REAL NOT NULL,
    maximum REAL NOT NULL,
    distribution TEXT NOT NULL,
    PRIMARY KEY (series, start, width)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS cloudwatch_samples_by_start ON cloudwatch_samples (start);
