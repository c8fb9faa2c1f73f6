"""`preheat serve`: the platform alone."""

import errno
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from preheat.settings import Settings


def serve(
    port: Annotated[int, typer.Option(help="TCP port on 127.0.0.1.", min=1, max=65_535)] = 4566,
    state: Annotated[Path, typer.Option(help="Directory that keeps everything.")] = Path(".preheat"),
    durability: Annotated[str, typer.Option(help="process: survives kill -9. power: an fsync per commit.")] = "process",
    iam: Annotated[str, typer.Option(help="off, or enforce: every call is checked against policies.")] = "off",
    models: Annotated[Path | None, typer.Option(help="JSON file: model id -> backend; see docs/models.md.")] = None,
    concurrency: Annotated[int, typer.Option(help="Account concurrency limit of Lambda.", min=101)] = 1_000,
    tools: Annotated[Path | None, typer.Option(help="Directory whose node_modules holds aws-lambda-ric.")] = None,
    environments: Annotated[int, typer.Option(help="Most execution environments on this machine.", min=1)] = 512,
    min_free_memory: Annotated[
        int | None, typer.Option(help="MB to leave free; no further environment below. Default: a twentieth.", min=0)
    ] = None,
    interpreters: Annotated[
        list[Path] | None, typer.Option(help="Directory with Python or Node.js versions for functions.")
    ] = None,
    sandbox: Annotated[str, typer.Option(help="auto, bwrap (process ids apart too), or off.")] = "auto",
    cpu_share: Annotated[str, typer.Option(help="memory: processor time by memory size; whole: all of it.")] = "auto",
    streaming_bandwidth: Annotated[str, typer.Option(help="aws: 2 MB/s after 6 MB of a stream. off: none.")] = "off",
    snowflake: Annotated[str, typer.Option(help="on: Snowflake's drivers may log in, on the same port. off.")] = "on",
    event_rules: Annotated[int, typer.Option(help="EventBridge's quota of rules on one bus.", min=1)] = 300,
    service_quotas: Annotated[str, typer.Option(help="enforce: AWS's rates of FIFO queues. off: none.")] = "off",
) -> None:
    """Run the platform until SIGTERM or Ctrl-C."""
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


def run_server(settings: Settings, ready: Any = None) -> None:
    """Run a server to its end; known obstacles become one clear line and exit code 1, or 2 for what was asked for."""
    from preheat.app import run
    from preheat.models.registry import ModelConfigurationError
    from preheat.store.errors import StoreError

    def announce() -> None:
        typer.echo(f"preheat serves on {settings.endpoint} (state in {settings.state})", err=True)

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


def _fail(message: str, code: int) -> None:
    typer.echo(f"preheat: {message}", err=True)
    raise typer.Exit(code)
