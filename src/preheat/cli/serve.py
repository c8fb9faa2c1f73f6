"""`preheat serve`: the platform alone."""

from pathlib import Path
from typing import Annotated

import typer

from preheat.cli.serving import start


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
    start(
        port=port, state=state, durability=durability, iam=iam, models=models, concurrency=concurrency,
        tools=tools, environments=environments, min_free_memory=min_free_memory, interpreters=interpreters,
        sandbox=sandbox, cpu_share=cpu_share, streaming_bandwidth=streaming_bandwidth, snowflake=snowflake,
        event_rules=event_rules, service_quotas=service_quotas,
    )  # fmt: skip
