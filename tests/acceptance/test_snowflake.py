"""Snowflake's own Python connector, unchanged, against the endpoint; and a function in Lambda that uses it."""

import base64
import datetime
import decimal
import importlib.util
import json
import sys
import threading
import warnings
from pathlib import Path

import pytest

from tests.support.functions import ROLE, make_zip
from tests.support.server import LiveServer, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

MISSING = [name for name in ("duckdb", "sqlglot", "snowflake") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
HOUR = 3_600


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = LiveServer(tmp_path_factory.mktemp("snowflake") / "state").start()
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


def connected(server, **settings):
    import snowflake.connector

    given = {"user": "ada", "password": "secret", "account": "local", **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return snowflake.connector.connect(host="localhost", port=server.port, protocol="http", **given)


@pytest.fixture
def connection(server, request):
    """In a database of its own."""
    name = f"D_{abs(hash(request.node.name))}"
    connection = connected(server)
    connection.cursor().execute(f"CREATE DATABASE {name}")
    yield connection
    connection.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
    connection.close()


@pytest.fixture
def sql(connection):
    """Runs a statement; all its rows."""
    return lambda text, *values: connection.cursor().execute(text, *values).fetchall()


def other(server, connection, **settings):
    """A second session in the same database."""
    return connected(server, database=connection.database, schema="PUBLIC", **settings)


def failure(sql, text):
    from snowflake.connector.errors import DatabaseError

    with pytest.raises(DatabaseError) as caught:
        sql(text)
    return caught.value


def test_nothing_is_loaded_before_the_first_login(tmp_path):
    server = LiveServer(tmp_path / "state").start()
    try:
        maps = Path(f"/proc/{server.process.pid}/maps")
        assert "duckdb" not in maps.read_text()
        connected(server).close()
        assert "duckdb" in maps.read_text()
    finally:
        assert server.stop() == 0


def test_off_means_off(tmp_path):
    server = LiveServer(tmp_path / "state", "--snowflake", "off").start()
    try:
        status, _, body = server.get("/session/v1/login-request", "POST", b"{}", {"content-type": "application/json"})
        assert status >= 400 and b"token" not in body
    finally:
        assert server.stop() == 0


def test_buckets_named_like_snowflakes_paths_are_still_s3s(server, connection):
    s3 = server.client("s3")
    for name in ("session", "queries", "monitoring", "telemetry"):
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="v1/query-request", Body=b"mine")
        assert s3.get_object(Bucket=name, Key="v1/query-request")["Body"].read() == b"mine"


def test_values_of_every_type_come_back(connection, sql):
    sql(
        "CREATE TABLE T (I INT, N NUMBER(10,2), F FLOAT, S VARCHAR, B BOOLEAN, D DATE, TI TIME, NTZ TIMESTAMP_NTZ,"
        " LTZ TIMESTAMP_LTZ, V VARIANT, O OBJECT, A ARRAY, BI BINARY, E VECTOR(FLOAT, 3), W VECTOR(INT, 2))"
    )
    sql("ALTER SESSION SET TIMEZONE = 'Europe/Berlin'")
    sql(
        "INSERT INTO T SELECT 12345678901234567890123, 1.5, 0.25, 'naïve ''quote''', TRUE, '2024-02-29', '01:02:03.5',"
        " '2024-02-29 10:00:00.123456', '2024-07-01 12:00:00', PARSE_JSON('{\"b\": [1, null], \"a\": \"ü\"}'),"
        " OBJECT_CONSTRUCT('k', 1), ARRAY_CONSTRUCT(1, 'x'), TO_BINARY('c0ffee', 'HEX'),"
        " [1.5, -2, 3e-5]::VECTOR(FLOAT, 3), [7, -8]::VECTOR(INT, 2)"
    )
    sql("INSERT INTO T (I) VALUES (NULL)")
    cursor = connection.cursor().execute("SELECT * FROM T ORDER BY I")
    first, empty = cursor.fetchall()
    assert empty == (None,) * 15
    assert first[:6] == (
        12345678901234567890123, decimal.Decimal("1.50"), 0.25, "naïve 'quote'", True, datetime.date(2024, 2, 29),
    )  # fmt: skip
    assert first[6] == datetime.time(1, 2, 3, 500_000)
    assert first[7] == datetime.datetime(2024, 2, 29, 10, 0, 0, 123_456)
    assert first[8].astimezone(datetime.UTC) == datetime.datetime(2024, 7, 1, 10, tzinfo=datetime.UTC)
    assert [json.loads(one) for one in first[9:12]] == [{"a": "ü", "b": [1, None]}, {"k": 1}, [1, "x"]]
    assert bytes(first[12]) == b"\xc0\xff\xee"
    assert first[13] == pytest.approx([1.5, -2, 3e-5]) and first[14] == [7, -8]
    codes = {one.name: one.type_code for one in cursor.description}
    assert codes == {"I": 0, "N": 0, "F": 1, "S": 2, "B": 13, "D": 3, "TI": 12, "NTZ": 8, "LTZ": 6, "V": 5, "O": 9,
                     "A": 10, "BI": 11, "E": 16, "W": 16}  # fmt: skip
    number = cursor.description[1]
    assert (number.precision, number.scale) == (10, 2)


def test_names_are_upper_case_unless_quoted(connection, sql):
    sql('CREATE TABLE People (Name VARCHAR, "Nick Name" VARCHAR)')
    sql("INSERT INTO people VALUES ('a', 'b')")
    cursor = connection.cursor().execute('SELECT name, "Nick Name", name AS other, name AS "Kept", count(*) c, 1+1'
                                         " FROM PEOPLE GROUP BY ALL")  # fmt: skip
    assert [one.name for one in cursor.description] == ["NAME", "Nick Name", "OTHER", "Kept", "C", "1+1"]
    cursor = connection.cursor().execute("SELECT COUNT(*), max(name) FROM people")
    assert [one.name for one in cursor.description] == ["COUNT(*)", "MAX(NAME)"]


def test_bound_values(server, connection, sql):
    assert sql("SELECT %s, %s", (5, "it's; -- no")) == [(5, "it's; -- no")]
    asked = other(server, connection, paramstyle="qmark")
    values = (1, "x", None, 2.5, True, b"\x01\xff", datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5))
    (row,) = asked.cursor().execute(f"SELECT {', '.join('?' * len(values))}", values).fetchall()
    assert (*row[:5], bytes(row[5]), *row[6:]) == values
    (vector,) = asked.cursor().execute("SELECT ?::VECTOR(FLOAT, 2)", ("[1, 2.5]",)).fetchone()
    assert vector == [1.0, 2.5]
    asked.close()


def test_arrays_are_bound_for_many_rows_at_once(server, connection, sql):
    sql("CREATE TABLE T (ID INT, NAME VARCHAR, V VARIANT, E VECTOR(FLOAT, 2))")
    asked = other(server, connection, paramstyle="qmark")
    cursor = asked.cursor()
    rows = [(at, None if at % 3 else f"n{at}", json.dumps({"at": at}), f"[{at}, 1]") for at in range(2_500)]
    cursor.executemany("INSERT INTO T SELECT ?, ?, PARSE_JSON(?), PARSE_JSON(?)::ARRAY::VECTOR(FLOAT, 2)", rows)
    assert cursor.rowcount == 2_500
    assert sql("SELECT COUNT(*), COUNT(NAME), SUM(V:at::INT), MAX(E) IS NOT NULL FROM T") == [
        (2_500, 834, sum(range(2_500)), True)
    ]
    cursor.executemany("UPDATE T SET NAME = ? WHERE ID = ?", [("x", 1), ("y", 2)])
    assert cursor.rowcount == 2
    assert sql("SELECT NAME FROM T WHERE ID IN (1, 2) ORDER BY ID") == [("x",), ("y",)]
    asked.close()


def test_vector_functions_and_the_nearest(sql):
    sql("CREATE TABLE T (ID INT, E VECTOR(FLOAT, 2))")
    sql("INSERT INTO T SELECT 1, [1, 0]::VECTOR(FLOAT, 2) UNION ALL SELECT 2, [0, 2]::VECTOR(FLOAT, 2)")
    (row,) = sql(
        "SELECT VECTOR_COSINE_SIMILARITY(E, [3, 4]::VECTOR(FLOAT, 2)),"
        " VECTOR_INNER_PRODUCT(E, [3, 4]::VECTOR(FLOAT, 2)),"
        " VECTOR_L2_DISTANCE(E, [3, 4]::VECTOR(FLOAT, 2)), VECTOR_L1_DISTANCE(E, [3, 4]::VECTOR(FLOAT, 2))"
        " FROM T WHERE ID = 2"
    )
    assert row == pytest.approx((0.8, 8.0, 13**0.5, 5.0), rel=1e-5)
    near = "SELECT ID FROM T ORDER BY VECTOR_COSINE_SIMILARITY(E, [9, 1]::VECTOR(FLOAT, 2)) DESC LIMIT 1"
    assert sql(near) == [(1,)]
    assert sql("SELECT VECTOR_L1_DISTANCE([1,2]::VECTOR(INT,2), [4,6]::VECTOR(INT,2))") == [(7.0,)]


def test_vectors_of_the_wrong_length_are_refused(sql):
    sql("CREATE TABLE T (E VECTOR(FLOAT, 2))")
    cast = failure(sql, "SELECT [1,2,3]::VECTOR(FLOAT, 2)")
    assert "Array-like value being cast to a vector has incorrect dimension" in cast.msg
    call = failure(sql, "SELECT VECTOR_L2_DISTANCE(E, [1,2,3]::VECTOR(FLOAT, 3)) FROM T")
    assert (call.errno, call.sqlstate) == (1044, "42P13")
    assert "VECTOR_L2_DISTANCE': (VECTOR(FLOAT, 2), VECTOR(FLOAT, 3))" in call.msg
    assert failure(sql, "CREATE TABLE U (E VECTOR(FLOAT, 5000))").errno == 2040
    assert failure(sql, "INSERT INTO T VALUES ([1,2]::VECTOR(FLOAT,2))").errno == 2014
    assert sql("SELECT COUNT(*) FROM T") == [(0,)]


FAILURES = [
    ("SELECT * FROM NOPE", 2003, "42S02", "Object 'NOPE' does not exist or not authorized."),
    ("SELECT * FROM NODB.PUBLIC.T", 2003, "02000", "Database 'NODB' does not exist"),
    ("DROP TABLE NOPE", 2003, "42S02", "Table 'NOPE' does not exist or not authorized."),
    ("SELECT nope FROM T", 904, "42000", "error line 1 at position 7\ninvalid identifier 'NOPE'"),
    ("SELECT 1,\n  nope FROM T", 904, "42000", "error line 2 at position 2\ninvalid identifier 'NOPE'"),
    ("SELEC 1", 1003, "42000", "syntax error line 1 at position 0 unexpected 'SELEC'."),
    ("SELECT (1", 1003, "42000", "syntax error line 1"),
    ("SELECT FOO(1)", 2140, "42601", "Unknown function FOO"),
    ("SELECT 'abc'::INT", 100038, "22018", "Numeric value 'abc' is not recognized"),
    ("SELECT 'x'::DATE", 100040, "22007", "Date 'x' is not recognized"),
    ("SELECT 'x'::TIMESTAMP_NTZ", 100035, "22007", "Timestamp 'x' is not recognized"),
    ("SELECT 'x'::BOOLEAN", 100037, "22018", "Boolean value 'x' is not recognized"),
    ("SELECT 1/0", 100051, "22012", "Division by zero"),
    ("SELECT PARSE_JSON('{x')", 100069, "22P02", "Error parsing JSON"),
    ("INSERT INTO T (ID) VALUES (NULL)", 100072, "22000", "NULL result in a non-nullable column"),
    ("INSERT INTO T (ID, S) VALUES (1, 'abcd')", 100078, "22000", "too long and would be truncated"),
    ("INSERT INTO T VALUES (1)", 2020, "21S01", "expecting 3 but got 1"),
    ("INSERT INTO T (ID, V) VALUES (1, PARSE_JSON('1'))", 2014, "22000", "Invalid expression [PARSE_JSON('1')]"),
    ("INSERT INTO T (ID, V) VALUES (1, '{}')", 2023, "22000", "expecting VARIANT but got VARCHAR(2) for column V"),
    ("CREATE TABLE T (A INT)", 2002, "42710", "Object 'T' already exists."),
    ("SELECT COUNT(*), S FROM T", 979, "42601", "[S] is not a valid group by expression"),
    ("ALTER SESSION SET NO_SUCH = 1", 1006, "22023", "invalid parameter 'NO_SUCH'"),
    ("ALTER SESSION SET TIMEZONE = 'Nowhere/Land'", 1008, "22023", "invalid value ['Nowhere/Land']"),
    ("SELECT 1; SELECT 2", 8, "0A000", "Actual statement count 2 did not match the desired statement count 1."),
    ("SELECT SNOWFLAKE.CORTEX.EMBED_TEXT_768('m', 't')", 2, "0A000", "SNOWFLAKE.CORTEX.EMBED_TEXT_768"),
    ("SELECT * FROM READ_CSV('/etc/passwd')", None, None, ""),
    ("COPY INTO T FROM @stage", 2, "0A000", "Unsupported feature 'COPY'"),
    ("CREATE TABLE U CLONE T", 2, "0A000", "CLONE"),
]


@pytest.mark.parametrize(("text", "code", "state", "words"), FAILURES, ids=[one[0][:40] for one in FAILURES])
def test_failures_in_snowflakes_codes(connection, sql, text, code, state, words):
    sql("CREATE TABLE T (ID INT NOT NULL, S VARCHAR(3), V VARIANT)")
    error = failure(sql, text)
    if code is not None:
        assert (error.errno, error.sqlstate) == (code, state), error
    assert words in error.msg
    assert sql("SELECT COUNT(*) FROM T") == [(0,)]


def test_transactions_are_seen_when_committed_and_not_when_rolled_back(server, connection, sql):
    sql("CREATE TABLE T (ID INT)")
    second = other(server, connection)

    def count():
        return second.cursor().execute("SELECT COUNT(*) FROM T").fetchone()[0]

    sql("BEGIN")
    sql("INSERT INTO T VALUES (1), (2)")
    assert (count(), sql("SELECT COUNT(*) FROM T")) == (0, [(2,)])
    sql("COMMIT")
    assert count() == 2
    sql("BEGIN")
    sql("DELETE FROM T")
    sql("ROLLBACK")
    assert count() == 2
    connection.autocommit(False)
    sql("DELETE FROM T WHERE ID = 1")
    assert count() == 2
    connection.commit()
    assert count() == 1
    second.close()


def test_a_writer_waits_for_the_other_to_commit(server, connection, sql):
    sql("CREATE TABLE T (ID INT, N INT)")
    sql("INSERT INTO T VALUES (1, 0)")
    second = other(server, connection)
    sql("BEGIN")
    sql("UPDATE T SET N = N + 1 WHERE ID = 1")
    waiting = second.cursor()
    waiting.execute_async("UPDATE T SET N = N + 10 WHERE ID = 1")
    assert second.is_still_running(second.get_query_status(waiting.sfqid))
    third = other(server, connection)
    third.cursor().execute("ALTER SESSION SET LOCK_TIMEOUT = 1")
    assert failure(lambda text: third.cursor().execute(text), "DELETE FROM T").errno == 625
    sql("COMMIT")
    wait_for(lambda: not second.is_still_running(second.get_query_status(waiting.sfqid)), what="the second update")
    assert sql("SELECT N FROM T") == [(11,)]
    for one in (second, third):
        one.close()


def test_a_closed_session_gives_up_its_transaction(server, connection, sql):
    sql("CREATE TABLE T (ID INT)")
    second = other(server, connection)
    second.cursor().execute("BEGIN")
    second.cursor().execute("INSERT INTO T VALUES (1)")
    second.close()
    sql("INSERT INTO T VALUES (2)")
    assert sql("SELECT ID FROM T") == [(2,)]


def test_many_sessions_write_at_once_and_nothing_is_lost(server, connection, sql):
    sql("CREATE TABLE T (ID INT, N INT)")
    sql("INSERT INTO T VALUES (1, 0)")
    errors = []

    def add():
        try:
            own = other(server, connection)
            for _ in range(10):
                own.cursor().execute("MERGE INTO T USING (SELECT 1 AS ID) S ON T.ID = S.ID"
                                     " WHEN MATCHED THEN UPDATE SET T.N = T.N + 1")  # fmt: skip
            own.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == [] and sql("SELECT N FROM T") == [(40,)]


def test_the_current_things_and_what_is_shown(connection, sql):
    database = connection.database
    assert sql("SELECT CURRENT_DATABASE(), CURRENT_SCHEMA(), CURRENT_USER()") == [(database, "PUBLIC", "ADA")]
    sql("CREATE SCHEMA OTHER")
    assert sql("SELECT CURRENT_SCHEMA()") == [("OTHER",)]
    sql("CREATE TABLE T (ID INT PRIMARY KEY, E VECTOR(FLOAT, 8), S VARCHAR(9) COMMENT 'said')")
    sql(f"USE SCHEMA {database}.PUBLIC")
    assert failure(sql, "SELECT * FROM T").errno == 2003
    assert [row[1] for row in sql("SHOW TABLES IN SCHEMA OTHER")] == ["T"]
    assert sql("SHOW TABLES") == []
    assert sorted(row[1] for row in sql("SHOW SCHEMAS")) == ["OTHER", "PUBLIC"]
    assert database in [row[1] for row in sql("SHOW DATABASES")]
    rows = [(row[0], row[1], row[3], row[5], row[9]) for row in sql("DESCRIBE TABLE OTHER.T")]
    assert rows == [("ID", "NUMBER(38,0)", "N", "Y", None), ("E", "VECTOR(FLOAT, 8)", "Y", "N", None),
                    ("S", "VARCHAR(9)", "Y", "N", "said")]  # fmt: skip
    found = sql("SELECT COLUMN_NAME, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'T' ORDER BY 1")
    assert found == [("E", "VECTOR"), ("ID", "NUMBER"), ("S", "VARCHAR")]
    sql("SHOW TABLES IN SCHEMA OTHER")
    assert sql('SELECT "name" FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()))') == [("T",)]


def test_a_remembered_plan_is_nobody_elses(server, connection, sql):
    """The same text in another session, schema, or after the table changed, means what it says there."""
    sql("CREATE TABLE T (A INT)")
    assert connection.cursor().execute("SELECT * FROM T").description[0].name == "A"
    second = other(server, connection)
    numbers = {one.cursor().execute("SELECT CURRENT_SESSION()").fetchone()[0] for one in (connection, second)}
    assert len(numbers) == 2
    sql("CREATE OR REPLACE TABLE T (B VARCHAR)")
    assert second.cursor().execute("SELECT * FROM T").description[0].name == "B"
    for one, column in ((connection, "MINE"), (second, "YOURS")):
        one.cursor().execute(f"CREATE TEMPORARY TABLE OWN ({column} INT)")
        assert one.cursor().execute("SELECT * FROM OWN").description[0].name == column
    sql("CREATE SCHEMA S2")
    assert failure(sql, "SELECT * FROM T").errno == 2003
    second.close()


def test_users_keys_and_wrong_logins(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from snowflake.connector.errors import DatabaseError

    server = LiveServer(tmp_path / "state").start()
    try:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        public = base64.b64encode(key.public_key().public_bytes(*form)).decode()
        admin = connected(server)
        admin.cursor().execute("CREATE USER ADA PASSWORD = 'secret'")
        admin.cursor().execute(f"CREATE USER BOT RSA_PUBLIC_KEY = '{public}'")
        connected(server).close()
        connected(server, user="bot", password=None, private_key=der, authenticator="SNOWFLAKE_JWT").close()
        stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for wrong, code in [
            ({"password": "guess"}, 390100),
            ({"user": "nobody"}, 390100),
            ({"user": "bot", "password": "x"}, 390100),
            ({"user": "bot", "password": None, "private_key": stranger, "authenticator": "SNOWFLAKE_JWT"}, 390144),
        ]:
            with pytest.raises(DatabaseError) as caught:
                connected(server, **wrong)
            assert str(code) in str(caught.value), caught.value
        assert "secret" not in "".join(
            path.read_bytes().decode("latin-1") for path in (tmp_path / "state" / "snowflake").iterdir()
        )
        admin.close()
    finally:
        assert server.stop() == 0


def test_a_session_is_renewed_and_ends(tmp_path):
    from ragkit.stores.snowflake import SnowflakeStore
    from snowflake.connector.errors import Error

    server = LiveServer(tmp_path / "state").start()
    made = []

    def connect():
        made.append(connected(server, database="D", paramstyle="qmark"))
        return made[-1]

    try:
        first = connected(server)
        first.cursor().execute("CREATE DATABASE D")
        number = first.cursor().execute("SELECT CURRENT_SESSION()").fetchone()
        store = SnowflakeStore(connect, "passages", 2)
        store.prepare()
        server.advance(2 * HOUR)
        assert first.cursor().execute("SELECT CURRENT_SESSION()").fetchone() == number
        server.advance(5 * HOUR)
        with pytest.raises(Error):
            first.cursor().execute("SELECT 1")
        assert store.lexical("anything", 5, None) == [] and len(made) == 2
        server.kill()
        server.start()
        assert store.delete("nothing") == 0 and len(made) == 3
        made[-1].close()
    finally:
        assert server.stop() == 0


def test_large_results_come_in_chunks(server, connection, sql):
    sql("CREATE TABLE T AS SELECT COLUMN1 AS A FROM VALUES " + ", ".join(f"({at})" for at in range(300)))
    cursor = connection.cursor().execute(
        "SELECT L.A * 300 + R.A AS ID, REPEAT('é', 150) || ID AS S FROM T L CROSS JOIN T R ORDER BY ID LIMIT 60000"
    )
    assert cursor.rowcount == 60_000
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == list(range(60_000))
    assert rows[-1][1] == "é" * 150 + "59999"
    query = cursor.sfqid
    again = connection.cursor()
    again.get_results_from_sfqid(query)
    assert len(again.fetchall()) == 60_000
    assert server.get(f"/_preheat/snowflake/chunks/{query}/0")[0] == 404


def test_queries_run_on_without_their_client(connection, sql):
    cursor = connection.cursor()
    cursor.execute_async("SELECT 41 + 1 AS ANSWER")
    query = cursor.sfqid
    wait_for(lambda: not connection.is_still_running(connection.get_query_status(query)), what="the query")
    cursor.get_results_from_sfqid(query)
    assert cursor.fetchall() == [(42,)]
    cursor.execute_async("SELECT * FROM NOPE")
    wait_for(lambda: not connection.is_still_running(connection.get_query_status(cursor.sfqid)), what="the query")
    assert connection.is_an_error(connection.get_query_status(cursor.sfqid))


def test_several_statements(connection):
    cursor = connection.cursor()
    text = "CREATE TABLE T (A INT); INSERT INTO T VALUES (1), (2); SELECT A FROM T ORDER BY A"
    cursor.execute(text, num_statements=3)
    assert cursor.fetchall() == [("Table T successfully created.",)]
    cursor.nextset()
    assert cursor.fetchall() == [(2,)]
    cursor.nextset()
    assert cursor.fetchall() == [(1,), (2,)]
    assert [one.fetchall() for one in connection.execute_string("SELECT 1; SELECT 2;")] == [[(1,)], [(2,)]]


SLOW = "SELECT COUNT(*) FROM T A, T B, T C, T D WHERE SHA2(A.S || B.S || C.S || D.S) LIKE '%zzz%'"


def test_a_statement_that_takes_too_long_is_canceled(connection, sql):
    sql("CREATE TABLE T AS SELECT COLUMN1::VARCHAR AS S FROM VALUES " + ", ".join(f"({at})" for at in range(400)))
    sql("ALTER SESSION SET STATEMENT_TIMEOUT_IN_SECONDS = 1")
    error = failure(sql, SLOW)
    assert (error.errno, error.sqlstate) == (630, "57014")
    sql("ALTER SESSION UNSET STATEMENT_TIMEOUT_IN_SECONDS")
    assert sql("SELECT 1") == [(1,)]


def raw(server, path, body, token="None"):
    """(document) of one request as a driver makes it."""
    headers = {"content-type": "application/json", "authorization": f'Snowflake Token="{token}"'}
    return json.loads(server.get(path, "POST", json.dumps(body).encode(), headers)[2])


def test_a_query_is_aborted_and_a_repeated_request_runs_once(server, connection, sql):
    sql("CREATE TABLE T AS SELECT COLUMN1::VARCHAR AS S FROM VALUES " + ", ".join(f"({at})" for at in range(400)))
    login = raw(server, "/session/v1/login-request", {"data": {"LOGIN_NAME": "ada", "PASSWORD": "x"}})["data"]

    def ask(text, name, **more):
        path = f"/queries/v1/query-request?requestId={name}"
        return raw(server, path, {"sqlText": text, **more}, login["token"])

    assert ask(f"USE DATABASE {connection.database}", "r0")["success"]
    started = ask(SLOW, "r1", asyncExec=True)
    assert started["code"] == "333334"
    assert raw(server, "/queries/v1/abort-request?requestId=r2", {"requestId": "r1"}, login["token"])["success"]
    headers = {"authorization": f'Snowflake Token="{login["token"]}"'}
    answer = json.loads(server.get(started["data"]["getResultUrl"], headers=headers)[2])
    assert (answer["code"], answer["data"]["sqlState"]) == ("000604", "57014")
    for _ in range(2):
        assert ask("INSERT INTO T VALUES ('once')", "r3")["success"]
    assert sql("SELECT COUNT(*) FROM T WHERE S = 'once'") == [(1,)]
    assert raw(server, "/queries/v1/query-request?requestId=r", {"sqlText": "SELECT 1"}, "forged")["code"] == "390111"
    assert raw(server, "/queries/v1/query-request?requestId=r4", {}, login["token"])["success"] is False


def test_what_was_committed_survives_kill(tmp_path):
    server = LiveServer(tmp_path / "state").start()
    try:
        connection = connected(server)
        first = "CREATE DATABASE D; CREATE TABLE T (E VECTOR(FLOAT, 2)); INSERT INTO T SELECT [1,2]::VECTOR(FLOAT,2)"
        for text in (*first.split("; "), "BEGIN", "INSERT INTO T SELECT E FROM T"):
            connection.cursor().execute(text)
        server.kill()
        server.start()
        again = connected(server, database="D")
        assert again.cursor().execute("SELECT E FROM T").fetchall() == [([1.0, 2.0],)]
        again.close()
    finally:
        assert server.stop() == 0


QUERIES = [
    ("SELECT V:a.b[1]::STRING, V:n::INT + 1, V['k'] FROM T", [("two", 8, '"txt"')]),
    ("SELECT ID FROM T WHERE V:k = 'txt' AND V:n >= 7 AND V:a.b[0] = 1", [(1,)]),
    ("SELECT F.INDEX, F.VALUE::STRING FROM T, LATERAL FLATTEN(INPUT => V:a.b) F ORDER BY 1", [(0, "1"), (1, "two")]),
    ("SELECT KEY FROM T, TABLE(FLATTEN(V)) ORDER BY KEY", [("a",), ("k",), ("n",)]),
    ("SELECT T.ID, F.VALUE FROM T, LATERAL FLATTEN(INPUT => V:none, OUTER => TRUE) F", [(1, None)]),
    ("WITH C AS (SELECT ID FROM T) SELECT C.ID FROM C JOIN T ON C.ID = T.ID", [(1,)]),
    ("SELECT $1, COLUMN2 FROM VALUES (1, 'a'), (2, 'b') QUALIFY ROW_NUMBER() OVER (ORDER BY $1 DESC) = 1", [(2, "b")]),
    ("SELECT IFF(TRUE, 'y', 'n'), NVL(NULL, 3), TRY_TO_NUMBER('x'), ZEROIFNULL(NULL)", [("y", 3, None, 0)]),
    ("SELECT ARRAY_SIZE(V:a.b), ARRAY_CONTAINS('two'::VARIANT, V:a.b), TYPEOF(V:a) FROM T", [(2, True, "OBJECT")]),
    ("SELECT LISTAGG(COLUMN1, ',') WITHIN GROUP (ORDER BY COLUMN1 DESC) FROM VALUES ('a'), ('b')", [("b,a",)]),
    ("SELECT COUNT_IF(COLUMN1 > 1), MEDIAN(COLUMN1) FROM VALUES (1), (2), (3)", [(2, 2.0)]),
    ("SELECT V:missing IS NULL, V:a.b[9] IS NULL FROM T", [(True, True)]),
    ("SELECT TO_VARCHAR(12) || '%', CONTAINS('abc', 'b'), LOWER(V:k) FROM T", [("12%", True, "txt")]),
]


@pytest.mark.parametrize(("text", "rows"), QUERIES, ids=[one[0][:50] for one in QUERIES])
def test_queries_mean_what_they_mean_in_snowflake(sql, text, rows):
    sql("CREATE TABLE T (ID INT, V VARIANT)")
    sql("INSERT INTO T SELECT 1, PARSE_JSON('{\"a\": {\"b\": [1, \"two\"]}, \"k\": \"txt\", \"n\": 7}')")
    assert sql(text) == rows


def test_merge_update_delete_count_what_they_did(connection, sql):
    sql("CREATE TABLE T (ID INT, S VARCHAR)")
    assert sql("INSERT INTO T VALUES (1, 'a'), (2, 'b'), (3, 'c')") == [(3,)]
    merge = (
        "MERGE INTO T USING (SELECT COLUMN1 AS ID, COLUMN2 AS S FROM VALUES (2, 'B'), (3, NULL), (4, 'd')) N"
        " ON T.ID = N.ID WHEN MATCHED AND N.S IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET T.S = N.S"
        " WHEN NOT MATCHED THEN INSERT (ID, S) VALUES (N.ID, N.S)"
    )
    cursor = connection.cursor().execute(merge)
    assert cursor.fetchall() == [(1, 1, 1)] and cursor.rowcount == 3
    assert sql("SELECT * FROM T ORDER BY ID") == [(1, "a"), (2, "B"), (4, "d")]
    assert sql("UPDATE T SET S = UPPER(S) WHERE ID <> 2") == [(2, 0)]
    assert sql("DELETE FROM T USING (SELECT 4 AS ID) D WHERE T.ID = D.ID") == [(1,)]
    sql("TRUNCATE TABLE T")
    assert sql("SELECT COUNT(*) FROM T") == [(0,)]


FUNCTION = """
import os, snowflake.connector
connection = snowflake.connector.connect(
    account="local", user="fn", password="x", host=os.environ["SNOWFLAKE_HOST"], protocol="http",
    port=int(os.environ["SNOWFLAKE_PORT"]), database="LAMBDA")

def handler(event, context):
    cursor = connection.cursor()
    cursor.execute("INSERT INTO ASKED VALUES (%s)", (event["id"],))
    return cursor.execute("SELECT COUNT(*), CURRENT_SESSION() FROM ASKED").fetchone()
"""


def test_a_warm_function_keeps_its_connection(server, connection, sql):
    """The connector as a function's package would carry it: found on PYTHONPATH here."""
    import snowflake

    sql("CREATE DATABASE LAMBDA")
    sql("CREATE TABLE ASKED (ID INT)")
    client = server.client("lambda")
    client.create_function(
        FunctionName="asks", Runtime=f"python3.{sys.version_info.minor}", Role=ROLE, Handler="app.handler", Timeout=60,
        MemorySize=1024, Code={"ZipFile": make_zip({"app.py": FUNCTION})},
        Environment={"Variables": {"SNOWFLAKE_HOST": "localhost", "SNOWFLAKE_PORT": str(server.port),
                                   "PYTHONPATH": str(Path(next(iter(snowflake.__path__))).parent)}},
    )  # fmt: skip
    client.get_waiter("function_active_v2").wait(FunctionName="asks")
    answers = []
    for number in range(3):
        reply = client.invoke(FunctionName="asks", Payload=json.dumps({"id": number}))
        payload = json.loads(reply["Payload"].read())
        assert "FunctionError" not in reply, payload
        answers.append(payload)
    assert [one[0] for one in answers] == [1, 2, 3]
    assert len({one[1] for one in answers}) == 1
