CREATE TABLE IF NOT EXISTS bedrock_models_used (
    model TEXT PRIMARY KEY,
    at REAL NOT NULL
);
