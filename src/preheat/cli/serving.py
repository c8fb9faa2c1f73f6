"""Serving, once the options are known; without the library that reads command lines, so that a server starts sooner."""

import errno
import gc
import json
import shutil
import sys
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn

from preheat.settings import Settings

RANGES: dict[str, tuple[int, int | None]] = {
    "port": (1, 65_535),
    "concurrency": (101, None),
    "environments": (1, None),
    "min_free_memory": (0, None),
    "event_rules": (1, None),
}
"""The least and the largest value of each number."""


def start(
    port: int = 4566,
    state: Path = Path(".preheat"),
    durability: str = "process",
    iam: str = "off",
    models: Path | None = None,
    concurrency: int = 1_000,
    tools: Path | None = None,
    environments: int = 512,
    min_free_memory: int | None = None,
    interpreters: list[Path] | None = None,
    sandbox: str = "auto",
    cpu_share: str = "auto",
    streaming_bandwidth: str = "off",
    snowflake: str = "on",
    event_rules: int = 300,
    service_quotas: str = "off",
) -> None:
    """Check the options of `preheat serve` (cli/serve.py says what each is), then serve until told to stop. Exits with
    2 for an option that cannot be."""
    if durability not in ("process", "power"):
        _fail(f"--durability is process or power, not {durability!r}", 2)
    if iam not in ("off", "enforce"):
        _fail(f"--iam is off or enforce, not {iam!r}", 2)
    if sandbox not in ("auto", "off", "bwrap"):
        _fail(f"--sandbox is auto, off or bwrap, not {sandbox!r}", 2)
    if sandbox == "bwrap" and shutil.which("bwrap") is None:
        _fail("--sandbox bwrap needs bubblewrap; install it, or leave the option out", 2)
    if cpu_share not in ("auto", "memory", "whole"):
        _fail(f"--cpu-share is auto, memory or whole, not {cpu_share!r}", 2)
    if streaming_bandwidth not in ("off", "aws"):
        _fail(f"--streaming-bandwidth is off or aws, not {streaming_bandwidth!r}", 2)
    if service_quotas not in ("off", "enforce"):
        _fail(f"--service-quotas is off or enforce, not {service_quotas!r}", 2)
    if snowflake not in ("on", "off"):
        _fail(f"--snowflake is on or off, not {snowflake!r}", 2)
    settings = Settings(
        state=state.absolute(),
        port=port,
        durability=durability,
        iam=iam,
        models=_read_models(models),
        tools=None if tools is None else tools.absolute(),
        account_concurrency=concurrency,
        max_environments=environments,
        min_free_memory_mb=min_free_memory,
        interpreters=tuple(directory.absolute() for directory in interpreters or ()),
        sandbox=sandbox,
        cpu_share=cpu_share,
        streaming_bandwidth=streaming_bandwidth,
        event_rules=event_rules,
        snowflake=snowflake,
        service_quotas=service_quotas,
    )
    run_server(settings)


def plain_options(arguments: list[str]) -> dict[str, Any] | None:
    """What `start` is to be given for `serve --port 4566 ...`. None for anything but options with good values: help,
    mistakes and their messages are typer's."""
    if arguments[:1] != ["serve"]:
        return None
    parameters, found = signature(start).parameters, {}
    words = iter(arguments[1:])
    for word in words:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not equals:
            value = next(words, "")
        if name not in parameters or option != "--" + name.replace("_", "-") or not value or value.startswith("-"):
            return None
        if name == "interpreters":
            found[name] = [*found.get(name, ()), Path(value)]
        elif name in RANGES:
            least, largest = RANGES[name]
            if not (value.isascii() and value.isdecimal() and least <= int(value) <= (largest or int(value))):
                return None
            found[name] = int(value)
        else:
            found[name] = Path(value) if name in ("state", "models", "tools") else value
    return found


def run_server(settings: Settings, ready: Any = None) -> None:
    """Run a server to its end; known obstacles become one clear line and exit code 1, or 2 for what was asked for."""
    gc.disable()
    from preheat.app import run
    from preheat.models.registry import ModelConfigurationError
    from preheat.store.errors import StoreError

    def announce() -> None:
        _say(f"preheat serves on {settings.endpoint} (state in {settings.state})")

    try:
        run(settings, ready or announce)
    except StoreError as error:
        _fail(str(error), 1)
    except ModelConfigurationError as error:
        _fail(f"--models: {error}", 2)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            _fail(f"port {settings.port} on {settings.host} is in use; stop what listens there or give --port", 1)
        if error.errno == errno.EACCES:
            _fail(f"port {settings.port} may not be opened by this user; give a --port above 1023", 1)
        _fail(f"cannot serve on {settings.host}:{settings.port}: {error.strerror or error}", 1)


def _read_models(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        _fail(f"--models {path}: {error.strerror}", 2)
    except ValueError as error:
        _fail(f"--models {path} is not valid JSON: {error}", 2)
    if not isinstance(document, dict):
        _fail(f"--models {path} must hold a JSON object of model ids", 2)
    return document


def _fail(message: str, code: int) -> NoReturn:
    _say(f"preheat: {message}")
    raise SystemExit(code)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
