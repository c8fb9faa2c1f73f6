"""The HTTP face: what Snowflake's drivers ask for. A request is Snowflake's when it carries a Snowflake token, logs in,
or fetches a chunk of a result; all others are left to the doors behind."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.secure import scheme_of
from preheat.kernel.stream import Background, FileSlice
from preheat.snowflake import answers
from preheat.snowflake.desk import MASTER_S, TOKEN_S, Desk, Job, Later, Live
from preheat.snowflake.engine import Engine, Query
from preheat.snowflake.errors import SnowflakeError
from preheat.snowflake.results import Outcome

LOGIN = "/session/v1/login-request"
CHUNKS = "/_preheat/snowflake/chunks/"
MARK = "Snowflake Token="
JSON = [("Content-Type", "application/json")]
LARGEST_BODY = 512 * 1024 * 1024
PATHS = ("/session", "/queries/", "/telemetry/", "/monitoring/")


class SnowflakeDoor:
    """`folder` keeps the databases; None: memory. `results` takes result chunks. `later` is the loop's call_later."""

    def __init__(
        self, folder: Path | None, results: Path, clock: Clock, entropy: Entropy, later: Later,
        background: Callable[[], Background],
    ) -> None:  # fmt: skip
        self._entropy = entropy
        self._later = later
        self._clock = clock
        self.desk = Desk(Engine(folder, results, clock, entropy), clock, entropy, later, background)
        self._key = entropy.uuid()

    def matches(self, request: HttpRequest) -> bool:
        path = request.path
        if path == LOGIN:
            return request.method == "POST"
        if path.startswith(CHUNKS):
            return True
        return request.headers.get("authorization", "").startswith(MARK) and path.startswith(PATHS)

    def close(self) -> None:
        self.desk.close()

    def handle(self, exchange: Any) -> None:
        request = exchange.request
        try:
            if request.path.startswith(CHUNKS):
                self._chunk(exchange)
            elif request.path == LOGIN:
                self._login(exchange)
            elif request.path.startswith("/telemetry/"):
                _say(exchange, answers.ok("Log Received"))
            elif request.path == "/session/token-request":
                self._renew(exchange)
            else:
                self._within(exchange, self.desk.session(_token(request)))
        except SnowflakeError as error:
            _say(exchange, answers.failed(error))

    def _within(self, exchange: Any, live: Live) -> None:
        """What a session may ask."""
        request = exchange.request
        method, parts = request.method, [one for one in request.path.split("/") if one]
        if parts == ["queries", "v1", "query-request"] and method == "POST":
            self._query(exchange, live)
        elif parts == ["queries", "v1", "abort-request"] and method == "POST":
            body = _body(request)
            self.desk.abort(live, str(body.get("requestId") or ""))
            _say(exchange, answers.ok(None))
        elif len(parts) == 3 and parts[0] == "queries" and parts[2] == "result":
            self._result(exchange, live, parts[1])
        elif len(parts) == 3 and parts[0] == "queries" and parts[2] == "abort-request":
            job = self.desk.job(parts[1])
            if job is not None:
                self.desk.cancel(job)
            _say(exchange, answers.ok(None))
        elif parts[:2] == ["monitoring", "queries"] and len(parts) == 3:
            self._status(exchange, live, parts[2])
        elif parts == ["session", "heartbeat"]:
            self.desk.heartbeat(live)
            _say(exchange, answers.ok(None))
        elif parts == ["session"] and dict(request.arguments()).get("delete") == "true":
            self.desk.close_session(live)
            _say(exchange, answers.ok(None))
        else:
            text = f"{method} {request.path} is not supported by this endpoint"
            _say(exchange, answers.failed(SnowflakeError(390400, "08001", text)), 404)

    # -- sessions -------------------------------------------------------------------------------------------------

    def _login(self, exchange: Any) -> None:
        request = exchange.request
        data = _body(request).get("data")
        if not isinstance(data, dict):
            raise SnowflakeError(390400, "08001", "Bad request; a login has an object data.")
        asked = dict(parse_qsl(request.query))
        wanted = {
            "database": asked.get("databaseName"), "schema": asked.get("schemaName"),
            "warehouse": asked.get("warehouse"), "role": asked.get("roleName"),
            "parameters": data.get("SESSION_PARAMETERS"),
        }  # fmt: skip

        def done(value: Live | SnowflakeError) -> None:
            if isinstance(value, SnowflakeError):
                _say(exchange, answers.failed(value, {"nextAction": "RETRY_LOGIN", "authnMethod": "USERNAME_PASSWORD"}))
                return
            session = value.session
            document = {
                "token": value.token, "masterToken": value.master, "validityInSeconds": TOKEN_S,
                "masterValidityInSeconds": MASTER_S, "sessionId": session.number, "displayUserName": session.user,
                "serverVersion": "9.0.0", "firstLogin": False, "remMeToken": None, "remMeValidityInSeconds": 0,
                "healthCheckInterval": 45, "newClientForUpgrade": None, "parameters": _parameters(value),
                "sessionInfo": {"databaseName": session.database, "schemaName": session.schema,
                                "warehouseName": session.warehouse, "roleName": session.role},
            }  # fmt: skip
            _say(exchange, answers.ok(document))

        self.desk.login(data, wanted, done)

    def _renew(self, exchange: Any) -> None:
        live = self.desk.renew(_token(exchange.request))
        document = {
            "sessionToken": live.token, "validityInSecondsST": TOKEN_S, "masterToken": live.master,
            "validityInSecondsMT": MASTER_S, "sessionId": live.session.number,
        }  # fmt: skip
        _say(exchange, answers.ok(document))

    # -- queries --------------------------------------------------------------------------------------------------

    def _query(self, exchange: Any, live: Live) -> None:
        request = exchange.request
        body = _body(request)
        text = body.get("sqlText")
        if not isinstance(text, str):
            raise SnowflakeError(390400, "08001", "The request has no sqlText.")
        query = Query(
            self.desk.new_id(), text, body.get("bindings"), bool(body.get("describeOnly")), body.get("parameters") or {}
        )
        name = dict(request.arguments()).get("requestId") or query.id
        job = self.desk.submit(live, query, name)
        if body.get("asyncExec"):
            _say(exchange, answers.going_on(job.query.id, asynchronous=True))
        else:
            self._await(exchange, job)

    def _await(self, exchange: Any, job: Job) -> None:
        """Answer when the job is done, or after a while that it goes on."""
        if job.outcome is not None:
            self._tell(exchange, job.live, job.outcome)
            return

        def told(outcome: Outcome) -> None:
            timer.cancel()
            self._tell(exchange, job.live, outcome)

        def late() -> None:
            job.answers.remove(told)
            _say(exchange, answers.going_on(job.query.id, asynchronous=False))

        timer = self._later(answers.POLL_S, late)
        job.answers.append(told)

    def _tell(self, exchange: Any, live: Live, outcome: Outcome) -> None:
        base = f"{scheme_of(exchange.request)}://{exchange.request.headers.get('host', '127.0.0.1')}"

        def url(one: Outcome, number: int) -> str:
            return f"{base}{CHUNKS}{one.query}/{number}?key={self._key}"

        _say(exchange, answers.of(outcome, url, _parameters(live)))

    def _result(self, exchange: Any, live: Live, query: str) -> None:
        job = self.desk.job(query)
        if job is not None:
            self._await(exchange, job)
            return
        outcome = self.desk.outcome(query)
        if outcome is None:
            raise SnowflakeError(709, "02000", f"Statement {query} not found")
        self._tell(exchange, live, outcome)

    def _status(self, exchange: Any, live: Live, query: str) -> None:
        job, outcome = self.desk.job(query), self.desk.outcome(query)
        if job is None and outcome is None:
            _say(exchange, answers.ok({"queries": []}))
            return
        error = outcome.error if outcome is not None else None
        status = ("RUNNING" if job is not None and job.running else "QUEUED") if outcome is None else "SUCCESS"
        if error is not None:
            status = "FAILED_WITH_ERROR"
        entry = {
            "id": query, "status": status, "state": status, "sqlText": outcome.text if outcome else job.query.text,
            "errorCode": None if error is None else error.text_code, "sessionId": live.session.number,
            "errorMessage": None if error is None else error.message, "warehouseName": live.session.warehouse,
            "startTime": int((job.started if job else 0) * 1_000), "endTime": int((job.ended if job else 0) * 1_000),
            "totalDuration": int(max(0.0, job.ended - job.started) * 1_000) if job else 0,
        }  # fmt: skip
        _say(exchange, answers.ok({"queries": [entry]}))

    def _chunk(self, exchange: Any) -> None:
        request = exchange.request
        query, _, number = request.path[len(CHUNKS) :].partition("/")
        outcome = self.desk.outcome(query)
        allowed = dict(request.arguments()).get("key") == self._key and number.isdigit()
        if not allowed or outcome is None or int(number) >= len(outcome.chunks):
            exchange.respond(HttpResponse(404, [("Content-Type", "text/plain")], b"no such chunk"))
            return
        chunk = outcome.chunks[int(number)]
        exchange.respond(HttpResponse(200, JSON, FileSlice(chunk.path, 0, chunk.size)))


def _parameters(live: Live) -> list[dict[str, Any]]:
    """Session parameters that drivers follow."""
    session = live.session
    return [
        {"name": "AUTOCOMMIT", "value": bool(session.parameters["AUTOCOMMIT"])},
        {"name": "TIMEZONE", "value": session.parameters["TIMEZONE"]},
        {"name": "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY", "value": TOKEN_S},
        {"name": "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD", "value": 0},
        {"name": "CLIENT_TELEMETRY_ENABLED", "value": False},
        {"name": "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT", "value": "JSON"},
    ]


def _token(request: HttpRequest) -> str:
    return request.headers.get("authorization", "")[len(MARK) :].strip().strip('"')


def _body(request: HttpRequest) -> dict[str, Any]:
    """The JSON object that was sent. Raises 390400."""
    data = request.body
    try:
        if request.headers.get("content-encoding", "").lower() == "gzip":
            unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
            data = unpacking.decompress(data, LARGEST_BODY)
        found = msgspec.json.decode(data) if data else {}
    except (OSError, zlib.error, msgspec.DecodeError) as error:
        raise SnowflakeError(390400, "08001", f"Bad request; the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise SnowflakeError(390400, "08001", "Bad request; the body is not a JSON object.")
    return found


def _say(exchange: Any, document: dict[str, Any], status: int = 200) -> None:
    exchange.respond(HttpResponse(status, JSON, msgspec.json.encode(document)))
