"""A Snowflake endpoint over DuckDB: what Snowflake's own drivers talk to. See README.md."""
