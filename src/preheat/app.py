"""The composition root: the only place that constructs things and joins them."""

import asyncio
import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from preheat.console.views import PAGE, VIEWS
from preheat.execution.build import build_pool
from preheat.execution.contract import Executor, FunctionSpec, LogLine
from preheat.execution.flow import AWS_BANDWIDTH
from preheat.execution.machine_memory import default_min_free_mb
from preheat.execution.pool import Pool, PoolLimits
from preheat.execution.workers.housing import Choices
from preheat.gateway.authorization import Authorizer, ConnectionsAuthorizer, UrlAuthorizer
from preheat.gateway.certificates import Certificates
from preheat.gateway.connection import Connection, ConnectionLimits
from preheat.gateway.control import ControlDoor, ControlError, seconds_argument
from preheat.gateway.custom_resource import CustomResourceDoor
from preheat.gateway.driver import Driver, ThreadBackground
from preheat.gateway.execute_api import ExecuteApiDoor
from preheat.gateway.faults import Faults
from preheat.gateway.function_url import FunctionUrlDoor
from preheat.gateway.pages import PageDoor
from preheat.gateway.pipeline import ApiDoor, Door, Pipeline
from preheat.gateway.post_forms import FormDoor
from preheat.gateway.socket_api import SocketApi
from preheat.gateway.stage_rules import StageRules
from preheat.gateway.tls import TlsTransport
from preheat.gateway.topics import TopicDoor
from preheat.identity.root import root_key, write_file
from preheat.identity.sessions import session_key
from preheat.identity.trust import Trust
from preheat.kernel.clock import Clock, SystemClock
from preheat.kernel.entropy import Entropy, SystemEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.kernel.scope import Scope
from preheat.kernel.stream import Background
from preheat.services import findings
from preheat.services.awslambda import service as lambda_service
from preheat.services.contract import Context, Platform, Principal
from preheat.services.machine import HOME, ROOT, Machine
from preheat.services.sts.service import session_credentials
from preheat.services.table import SERVICES
from preheat.settings import TLS_FOLDER, Settings
from preheat.snowflake.door import SnowflakeDoor
from preheat.store.database import Database
from preheat.store.errors import StoreError
from preheat.template import service as template_service
from preheat.triggers.build import build_triggers
from preheat.triggers.contract import Notice
from preheat.wire import Wire

WARM_UP_AFTER_S = 0.2
LOG_DELAY_S = 0.02
SNOWFLAKE_THREADS = 8
"""Statements of Snowflake sessions at a time: MAX_CONCURRENCY_LEVEL of a warehouse."""
LOG_SLICE = 128
LOG_BACKLOG_BYTES = 8 * 1024 * 1024
LOG_LINE_BYTES = 256
"""What a line costs in memory besides its text, about."""
GC_THRESHOLDS = (50_000, 50, 50)
"""Rare collections: a large live heap made a full one cost 500 ms (perf facts, B1)."""


def build_machine(
    settings: Settings,
    db: Database,
    clock: Clock,
    entropy: Entropy,
    background: Background,
    executor: Executor,
    on_notice: Callable[[Notice], None],
) -> Platform:
    """A machine with every service, CloudFormation and the triggers: what serves, and what the simulator runs."""
    machine = Machine(db, clock, entropy, background)
    executor.meter = machine.meter
    platform = Platform(db, clock, entropy, background, machine, settings)
    functions = lambda_service.build(platform, executor)
    services = [importlib.import_module(module).build(platform) for module in SERVICES.values()]
    for service in (*services, functions, template_service.build(platform)):
        machine.add_service(service)
        for loop in getattr(service, "loops", ()):
            machine.add_loop(loop)
    for loop in build_triggers(platform, functions, on_notice):
        machine.add_loop(loop)
    return platform


class LogSink:
    """Takes the lines of functions as they come. LOG_DELAY_S after the first of them they are written, stream by stream
    and LOG_SLICE to a transaction: no answer waits for a line, nor long for the writing of many. `crowded` when more
    than LOG_BACKLOG_BYTES wait: functions then wait in their writing."""

    def __init__(self, later: Callable[[float, Callable[[], None]], Any]) -> None:
        self.machine: Machine | None = None
        self._later = later
        self._lines: list[LogLine] = []
        self._turn: list[LogLine] = []
        self._waiting = False
        self._backlog = 0

    def crowded(self) -> bool:
        return self._backlog > LOG_BACKLOG_BYTES

    def __call__(self, lines: list[LogLine]) -> None:
        self._lines.extend(lines)
        self._backlog += _weight(lines)
        self._wait()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(LOG_DELAY_S, self._begin)

    def _begin(self) -> None:
        lines, self._lines = self._lines, []
        lines.sort(key=_stream_of)
        lines.reverse()
        self._turn = lines
        self._go_on()

    def _go_on(self, reply: Any = None) -> None:
        if self._turn and self.machine is not None:
            self.machine.perform(self._write, self._go_on)
            return
        self._waiting = False
        if self._lines:
            self._wait()

    def _write(self, ctx: Context) -> dict[str, Any]:
        lines = self._turn[: -LOG_SLICE - 1 : -1]
        del self._turn[-LOG_SLICE:]
        self._backlog -= _weight(lines)
        ctx.machine.services["logs"].append(ctx, lines)
        return {}

    def close(self, db: Database, now: float) -> None:
        """Write what is left; the machine runs no more."""
        left, self._turn, self._lines = [*reversed(self._turn), *self._lines], [], []
        if left and self.machine is not None:
            with db.transaction():
                self.machine.services["logs"].append(Context(HOME, now, db, ROOT, "", self.machine), left)


class Server:
    """The live platform: `await start()`, then it serves until `await stop()`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self.notices: list[str] = []

    async def start(self) -> None:
        """Raises StoreError when the state cannot be used, OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        clock, entropy = self.clock, SystemEntropy()
        limits = ConnectionLimits(settings.max_body)
        self.db = Database(settings.state, settings.durability)
        self.scratch = _scratch(settings.state)
        self._tls_folder = (settings.state or self.scratch) / TLS_FOLDER
        self._trust = Trust(self._tls_folder, entropy, self._say)
        sink = self.sink = LogSink(loop.call_later)
        try:
            self.background = ThreadBackground(loop)
            self.pool = self._pool(loop, clock, entropy, sink)
            platform = build_machine(
                settings, self.db, clock, entropy, self.background, self.pool, lambda notice: self._say(notice.text)
            )
            self.machine = sink.machine = platform.machine
            self._keys(entropy)
            self.driver = Driver(loop, self.machine, clock)
            self.driver.steppers.append(self.pool.step)
            self.pool.on_wake = lambda: self.driver.step_soon(self.pool.step)
            pipeline = self._pipeline = Pipeline(self._doors(platform))
            certificates = Certificates(self._tls_folder, self.scratch, clock, entropy, self.background, self._say)

            def secure(transport: Any, connection: Connection, first: bytes) -> TlsTransport:
                return TlsTransport(transport, connection, first, certificates)

            self._listener = await loop.create_server(
                lambda: Connection(pipeline, limits, self._connections, secure),
                settings.host, settings.port, reuse_address=True, backlog=1_024,
            )  # fmt: skip
        except BaseException:
            self.db.close()
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise
        self.machine.wake_all()
        self.driver.schedule()
        loop.call_later(WARM_UP_AFTER_S, self.pool.warm)

    def _keys(self, entropy: Entropy) -> None:
        """The key that seals sessions; the root user's when policies are enforced, and the file that holds it."""
        enforce, first = self.settings.iam == "enforce", None
        with self.db.transaction():
            session_key(self.db, entropy)
            if enforce:
                first = root_key(self.db, entropy)
        if first is not None and self.settings.state is not None:
            self._say(f"policies are enforced; the root user's credentials: {write_file(self.settings.state, first)}")

    def _pool(self, loop: Any, clock: Clock, entropy: Entropy, on_log: Callable[[list[LogLine]], None]) -> Pool:
        settings = self.settings
        limits = PoolLimits(
            account_concurrency=settings.account_concurrency,
            max_environments=settings.max_environments,
            min_free_mb=default_min_free_mb() if settings.min_free_memory_mb is None else settings.min_free_memory_mb,
            idle_s=settings.idle_environment_s,
            bandwidth=AWS_BANDWIDTH if settings.streaming_bandwidth == "aws" else None,
        )
        return build_pool(
            loop, clock, entropy, scratch=self.scratch, endpoint=settings.endpoint, on_log=on_log, on_notice=self._say,
            credentials=self._credentials, limits=limits, tools=settings.tools,
            choices=Choices(settings.sandbox, settings.interpreters, settings.cpu_share), crowded=self.sink.crowded,
            trust=self._trust,
        )  # fmt: skip

    def _credentials(self, spec: FunctionSpec) -> dict[str, str]:
        """The role's credentials for an environment of this function."""
        scope = Scope(spec.account, spec.region)
        ctx = Context(scope, self.clock.now(), self.db, ROOT, "", self.machine)
        return session_credentials(ctx, spec.role, spec.name)

    def _say(self, text: str) -> None:
        """Something the user should know, once."""
        if text not in self.notices:
            self.notices.append(text)
            sys.stderr.write(f"notice: {text}\n")
            sys.stderr.flush()

    def _doors(self, platform: Platform) -> list[Door]:
        machine, entropy, services = self.machine, platform.entropy, self.machine.services
        iam, enforce = services["iam"], self.settings.iam == "enforce"

        authorizer = machine.authorizer = Authorizer(machine) if enforce else None

        def identify(request: HttpRequest, call: Call | None = None) -> Principal:
            known = iam.identify(self.db, request, enforce=enforce, now=self.clock.peer_now())
            return _principal(known.arn, known.account, known.kind, known.user_id, known.access_key)

        def identify_form(fields: Mapping[str, str]) -> Principal:
            known = iam.identify_form(self.db, fields, enforce=enforce, now=self.clock.peer_now())
            return _principal(known.arn, known.account, known.kind, known.user_id, known.access_key)

        wire, later = Wire(), asyncio.get_running_loop().call_later
        functions, apis = services["lambda"], services["apigatewayv2"]
        rules = StageRules(functions, enforce)
        self.sockets = SocketApi(
            machine, apis, functions, entropy, rules, ConnectionsAuthorizer(identify, authorizer),
            self.settings.endpoint.partition("://")[2],
        )  # fmt: skip
        faults = Faults(self.clock, entropy, wire.services, wire.operations)
        return [
            CustomResourceDoor(machine, services["cloudformation"]),
            *([] if enforce else [PageDoor(machine, "/_preheat/console", PAGE, VIEWS)]),
            *self._snowflake(),
            TopicDoor(wire, machine, services["sns"], entropy),
            self._control(faults),
            FunctionUrlDoor(machine, functions, entropy, UrlAuthorizer(identify, authorizer)),
            ExecuteApiDoor(machine, apis, functions, entropy, rules, self.sockets),
            FormDoor(wire, machine, identify_form, entropy, faults, later, self.clock.peer_now),
            ApiDoor(wire, machine, identify, entropy, faults, later),
        ]

    def _snowflake(self) -> list[Door]:
        """The Snowflake endpoint; DuckDB is loaded, and its threads are started, at the first login."""
        self.snowflake = None
        if self.settings.snowflake == "on":
            loop, state = asyncio.get_running_loop(), self.settings.state
            self.snowflake = SnowflakeDoor(
                None if state is None else state / "snowflake", self.scratch / "snowflake", self.clock, SystemEntropy(),
                loop.call_later, lambda: ThreadBackground(loop, SNOWFLAKE_THREADS),
            )  # fmt: skip
        return [] if self.snowflake is None else [self.snowflake]

    def _control(self, faults: Faults) -> ControlDoor:
        """The platform's own paths."""
        clock = self.clock

        def advance(request: HttpRequest) -> dict[str, Any]:
            self.driver.advance(seconds_argument(request))
            return {"now": clock.now()}

        def fidelity(request: HttpRequest) -> dict[str, Any]:
            wanted = dict(request.arguments())
            ctx = Context(HOME, clock.now(), self.db, ROOT, "", self.machine)
            stacks = self.machine.services["cloudformation"]
            try:
                rows = stacks.fidelity(ctx, wanted.get("stack", ""), wanted.get("change-set"))
            except AwsError as error:
                raise ControlError(error.status, error.message) from error
            return {"rows": [{**asdict(row), "effect": row.fidelity} for row in rows]}

        def outbox(request: HttpRequest) -> dict[str, Any]:
            return {"messages": self.machine.services["sns"].outbox()}

        return ControlDoor(
            {
                ("GET", "health"): lambda request: {"status": "ok", "pid": os.getpid()},
                ("POST", "clock/advance"): advance,
                ("GET", "clock"): lambda request: {"now": clock.now(), "offset": clock.offset},
                ("GET", "fidelity"): fidelity,
                ("GET", "notices"): lambda request: {"notices": self.notices},
                **({} if self.settings.iam == "enforce" else {("GET", "outbox"): outbox}),
                ("GET", "findings"): lambda request: {"findings": findings.everything(self.db)},
                ("GET", "faults"): faults.show,
                ("POST", "faults"): faults.add,
                ("DELETE", "faults"): faults.remove,
            }
        )

    async def stop(self) -> None:
        """Let nothing new in, close what is open, end the environments, leave the state clean."""
        if self._listener is not None:
            self._listener.close()
            self._pipeline.close()
            self.sockets.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        self.driver.stop()
        self.pool.close()
        self._trust.close()
        self.background.close()
        self.machine.services["s3vectors"].stop()
        if self.snowflake is not None:
            self.snowflake.close()
        with contextlib.suppress(StoreError):
            self.sink.close(self.db, self.clock.now())
        self.db.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


@lru_cache(4_096)
def _principal(arn: str, account: str, kind: str, user_id: str, access_key: str) -> Principal:
    return Principal(arn, account, kind, user_id, access_key)


def _weight(lines: list[LogLine]) -> int:
    return sum([len(line.message) for line in lines]) + LOG_LINE_BYTES * len(lines)


def _stream_of(line: LogLine) -> tuple[str, str]:
    return line.log_group, line.log_stream


def _scratch(state: Path | None) -> Path:
    """An empty directory for the environments' private /tmp; what a killed server left in it is removed."""
    if state is None:
        return Path(tempfile.mkdtemp(prefix="preheat-"))
    folder = state / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


async def serve(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT. `ready()` is called when requests are answered. What is there by then stays, so no
    garbage is looked for before."""
    loop = asyncio.get_running_loop()
    server = Server(settings)
    await server.start()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready()
    await stop.wait()
    await server.stop()


def run(settings: Settings, ready: Callable[[], None]) -> None:
    """`serve` on the fastest loop there is."""
    factory = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, ready))
    sys.stdout.flush()
