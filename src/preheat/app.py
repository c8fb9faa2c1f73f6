"""The composition root: the only place that constructs things and joins them."""

import asyncio
import contextlib
import importlib
import importlib.util
import os
import sys
from typing import Any

from preheat.gateway.connection import Connection, ConnectionLimits
from preheat.gateway.control import ControlDoor, seconds_argument
from preheat.gateway.driver import Driver, ThreadBackground
from preheat.gateway.pipeline import ApiDoor, Door, Pipeline
from preheat.kernel.clock import Clock, SystemClock
from preheat.kernel.entropy import Entropy, SystemEntropy
from preheat.kernel.http import Call, HttpRequest
from preheat.kernel.stream import Background
from preheat.services.contract import Platform, Principal
from preheat.services.machine import ROOT, Machine
from preheat.services.table import SERVICES
from preheat.settings import Settings
from preheat.store.database import Database
from preheat.wire import Wire


def build_machine(
    settings: Settings,
    db: Database,
    clock: Clock,
    entropy: Entropy,
    background: Background,
    only: set[str] | None = None,
) -> tuple[Machine, Platform]:
    """A machine with every service of the table (or `only` those) and their loops."""
    machine = Machine(db, clock, entropy, background)
    platform = Platform(db, clock, entropy, background, machine, settings)
    for name, module in SERVICES.items():
        if (only is None or name in only) and importlib.util.find_spec(module.rpartition(".")[0]) is not None:
            add_service(machine, importlib.import_module(module).build(platform))
    return machine, platform


def add_service(machine: Machine, service: Any) -> None:
    machine.add_service(service)
    for loop in getattr(service, "loops", ()):
        machine.add_loop(loop)


class Server:
    """The live platform: `await start()`, then it serves until `await stop()`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()

    async def start(self) -> None:
        """Raises StoreError when the state cannot be used, OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        settings = self.settings
        clock, entropy = SystemClock(), SystemEntropy()
        limits = ConnectionLimits(settings.max_body)
        self.db = Database(settings.state, settings.durability)
        try:
            self.background = ThreadBackground(loop)
            self.machine, platform = build_machine(settings, self.db, clock, entropy, self.background)
            self.driver = Driver(loop, self.machine, clock)
            pipeline = Pipeline(self._doors(platform, clock))
            self._listener = await loop.create_server(
                lambda: Connection(pipeline, limits, self._connections),
                settings.host, settings.port, reuse_address=True, backlog=1_024,
            )  # fmt: skip
        except BaseException:
            self.db.close()
            raise
        self.machine.wake_all()
        self.driver.schedule()

    def _doors(self, platform: Platform, clock: SystemClock) -> list[Door]:
        def identify(request: HttpRequest, call: Call) -> Principal:
            return ROOT

        def advance(request: HttpRequest) -> dict[str, Any]:
            self.driver.advance(seconds_argument(request))
            return {"now": clock.now()}

        control = ControlDoor(
            {
                ("GET", "health"): lambda request: {"status": "ok", "pid": os.getpid()},
                ("POST", "clock/advance"): advance,
                ("GET", "clock"): lambda request: {"now": clock.now(), "offset": clock.offset},
            }
        )
        return [control, ApiDoor(Wire(), self.machine, identify, platform.entropy)]

    async def stop(self) -> None:
        """Let nothing new in, close what is open, leave the state clean."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self._connections):
            connection.close_when_idle()
        self.driver.stop()
        self.background.close()
        self.db.close()


async def serve(settings: Settings, ready: Any = None) -> None:
    """Serve until SIGTERM or SIGINT. `ready()` is called when requests are answered."""
    import signal

    loop = asyncio.get_running_loop()
    server = Server(settings)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if ready is not None:
        ready()
    await stop.wait()
    await server.stop()


def run(settings: Settings, ready: Any = None) -> None:
    """`serve` on the fastest loop there is."""
    import gc

    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    factory = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, ready))
    sys.stdout.flush()
