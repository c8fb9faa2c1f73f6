"""INFORMATION_SCHEMA, SHOW and DESCRIBE: DuckDB's catalog as Snowflake shows it.

`preheat.databases` and `preheat.users` are the endpoint's own tables. A column's declared type, where DuckDB's says
less, and comments stand in DuckDB's comments as JSON: {"type", "comment"} and {"created", "comment"}.
"""

SETUP = (
    "CREATE SCHEMA IF NOT EXISTS preheat",
    "CREATE TABLE IF NOT EXISTS preheat.databases (name VARCHAR NOT NULL, created TIMESTAMPTZ NOT NULL)",
    "CREATE TABLE IF NOT EXISTS preheat.users (name VARCHAR NOT NULL, password VARCHAR, public_key VARCHAR)",
)
TABLES = """SELECT split_part(schema_name, '.', 1) AS TABLE_CATALOG, substr(schema_name, strpos(schema_name, '.') + 1)
 AS TABLE_SCHEMA, table_name AS TABLE_NAME, 'BASE TABLE' AS TABLE_TYPE, estimated_size AS ROW_COUNT,
 CAST(comment ->> '$.created' AS TIMESTAMPTZ) AS CREATED, comment ->> '$.comment' AS COMMENT FROM duckdb_tables()
 WHERE NOT temporary AND schema_name LIKE {database} || '.%'
 UNION ALL SELECT split_part(schema_name, '.', 1), substr(schema_name, strpos(schema_name, '.') + 1), view_name, 'VIEW',
 NULL, CAST(comment ->> '$.created' AS TIMESTAMPTZ), comment ->> '$.comment' FROM duckdb_views()
 WHERE NOT internal AND schema_name LIKE {database} || '.%'"""
KIND = """CASE WHEN data_type LIKE 'FLOAT[%' THEN 'VECTOR' WHEN data_type LIKE 'DOUBLE[%' THEN 'VECTOR'
 WHEN data_type LIKE 'DECIMAL%' THEN 'NUMBER' WHEN data_type = 'VARCHAR' THEN 'TEXT' WHEN data_type = 'DOUBLE' THEN
 'FLOAT' WHEN data_type = 'BLOB' THEN 'BINARY' WHEN data_type = 'TIMESTAMP' THEN 'TIMESTAMP_NTZ'
 WHEN data_type LIKE 'TIMESTAMP WITH%' THEN 'TIMESTAMP_LTZ' WHEN data_type = 'JSON' THEN 'VARIANT'
 WHEN data_type IN ('BIGINT', 'INTEGER', 'HUGEINT') THEN 'NUMBER' ELSE data_type END"""
COLUMNS = f"""SELECT split_part(schema_name, '.', 1) AS TABLE_CATALOG, substr(schema_name, strpos(schema_name, '.') + 1)
 AS TABLE_SCHEMA, table_name AS TABLE_NAME, column_name AS COLUMN_NAME, column_index AS ORDINAL_POSITION,
 column_default AS COLUMN_DEFAULT, CASE WHEN is_nullable THEN 'YES' ELSE 'NO' END AS IS_NULLABLE,
 COALESCE(regexp_replace(comment ->> '$.type', '[(].*', ''), {KIND}) AS DATA_TYPE, numeric_precision AS
 NUMERIC_PRECISION, numeric_scale AS NUMERIC_SCALE, comment ->> '$.comment' AS COMMENT FROM duckdb_columns()
 WHERE NOT internal AND schema_name LIKE {{database}} || '.%'"""
SCHEMATA = """SELECT split_part(schema_name, '.', 1) AS CATALOG_NAME, substr(schema_name, strpos(schema_name, '.') + 1)
 AS SCHEMA_NAME, 'ACCOUNTADMIN' AS SCHEMA_OWNER FROM duckdb_schemas() WHERE schema_name LIKE {database} || '.%'"""
DATABASES = """SELECT name AS DATABASE_NAME, 'ACCOUNTADMIN' AS DATABASE_OWNER, created AS CREATED
 FROM preheat.databases WHERE {database} IS NOT NULL"""
VIEWS = {
    "TABLES": TABLES,
    "COLUMNS": COLUMNS,
    "SCHEMATA": SCHEMATA,
    "DATABASES": DATABASES,
    "VIEWS": f"SELECT * EXCLUDE (TABLE_TYPE, ROW_COUNT) FROM ({TABLES}) WHERE TABLE_TYPE = 'VIEW'",
}
SHOW_TABLES = f"""SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_CATALOG AS "database_name",
 TABLE_SCHEMA AS "schema_name", 'TABLE' AS "kind", COALESCE(COMMENT, '') AS "comment", '' AS "cluster_by",
 ROW_COUNT AS "rows",
 CAST(NULL AS BIGINT) AS "bytes", 'ACCOUNTADMIN' AS "owner" FROM ({TABLES}) WHERE TABLE_TYPE = 'BASE TABLE'"""
SHOW_VIEWS = f"""SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_CATALOG AS "database_name", TABLE_SCHEMA AS
 "schema_name", COALESCE(COMMENT, '') AS "comment", 'ACCOUNTADMIN' AS "owner" FROM ({TABLES})
 WHERE TABLE_TYPE = 'VIEW'"""
SHOW_OBJECTS = f"""SELECT CREATED AS "created_on", TABLE_NAME AS "name", TABLE_CATALOG AS "database_name",
 TABLE_SCHEMA AS "schema_name", CASE TABLE_TYPE WHEN 'VIEW' THEN 'VIEW' ELSE 'TABLE' END AS "kind",
 COALESCE(COMMENT, '') AS "comment",
 'ACCOUNTADMIN' AS "owner" FROM ({TABLES})"""
SHOW_SCHEMAS = f"""SELECT CAST(NULL AS TIMESTAMPTZ) AS "created_on", SCHEMA_NAME AS "name", 'N' AS "is_default",
 CASE WHEN SCHEMA_NAME = {{schema}} THEN 'Y' ELSE 'N' END AS "is_current", CATALOG_NAME AS "database_name",
 SCHEMA_OWNER AS "owner" FROM ({SCHEMATA})"""
SHOW_DATABASES = """SELECT created AS "created_on", name AS "name", 'N' AS "is_default",
 CASE WHEN name = {database} THEN 'Y' ELSE 'N' END AS "is_current", 'ACCOUNTADMIN' AS "owner" FROM preheat.databases"""
SHOW_COLUMNS = f"""SELECT TABLE_NAME AS "table_name", TABLE_SCHEMA AS "schema_name", COLUMN_NAME AS "column_name",
 CAST(json_object('type', DATA_TYPE, 'nullable', IS_NULLABLE = 'YES') AS VARCHAR) AS "data_type",
 IS_NULLABLE AS "null?", COALESCE(COLUMN_DEFAULT, '') AS "default", 'COLUMN' AS "kind", TABLE_CATALOG AS
 "database_name", COALESCE(COMMENT, '') AS "comment", ORDINAL_POSITION AS "position" FROM ({COLUMNS})"""
SHOWN = {
    "TABLES": (SHOW_TABLES, '"name"', '"schema_name"'),
    "VIEWS": (SHOW_VIEWS, '"name"', '"schema_name"'),
    "OBJECTS": (SHOW_OBJECTS, '"name"', '"schema_name"'),
    "SCHEMAS": (SHOW_SCHEMAS, '"name"', ""),
    "DATABASES": (SHOW_DATABASES, '"name"', ""),
    "COLUMNS": (SHOW_COLUMNS, '"column_name"', '"schema_name"'),
}
"""What SHOW can list: the query, the column that LIKE matches, the column of the schema."""
