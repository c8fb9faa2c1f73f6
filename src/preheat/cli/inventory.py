"""What the platform implements, read off a platform in memory."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory


def inventory() -> Iterator[tuple[str, list[str], list[str]]]:
    """(service, implemented operations, the model's operations) of every service the wire routes."""
    from preheat.app import build_machine
    from preheat.kernel.clock import SystemClock
    from preheat.kernel.entropy import SystemEntropy
    from preheat.kernel.stream import InlineBackground
    from preheat.settings import Settings
    from preheat.simulate.executor import NoExecutor
    from preheat.store.database import Database
    from preheat.wire import Wire

    with TemporaryDirectory() as folder:
        db = Database(None)
        settings = Settings(state=Path(folder))
        platform = build_machine(
            settings, db, SystemClock(), SystemEntropy(), InlineBackground(), NoExecutor(), lambda notice: None
        )
        wire = Wire()
        for name in sorted(wire.services()):
            service = platform.machine.services.get(name)
            yield name, sorted(service.operations) if service else [], wire.operations(name)
        db.close()
