"""Every setting of the platform, in one frozen object, read once at the edge (command line, environment)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TLS_FOLDER = "tls"
"""The local certificate authority's place in the state directory."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`state` None keeps everything in memory."""

    state: Path | None = Path(".preheat")
    host: str = "127.0.0.1"
    port: int = 4566
    durability: Literal["process", "power"] = "process"
    iam: Literal["off", "enforce"] = "off"
    region: str = "us-east-1"
    max_body: int = 512 * 1024 * 1024
    account_concurrency: int = 1_000
    max_environments: int = 512
    min_free_memory_mb: int | None = None
    """No further environment starts while less of the machine's memory is free; None: a twentieth of it."""
    idle_environment_s: float = 300.0
    tools: Path | None = None
    """A directory whose node_modules may hold aws-lambda-ric, for Node functions."""
    interpreters: tuple[Path, ...] = ()
    """Directories searched first for the Python and Node.js versions that functions name."""
    sandbox: Literal["auto", "off", "bwrap"] = "auto"
    """What a function sees of the machine; execution/README.md."""
    cpu_share: Literal["auto", "memory", "whole"] = "auto"
    """Whether a function's processor time follows its memory size; "auto": where control groups of version 2 allow."""
    streaming_bandwidth: Literal["off", "aws"] = "off"
    """"aws": 2 MB a second after the first 6 MB of a streamed answer."""
    event_rules: int = 300
    """EventBridge's quota of rules on one bus; AWS raises it on request."""
    service_quotas: Literal["off", "enforce"] = "off"
    """"enforce": FIFO queues refuse calls beyond AWS's request rates; services/sqs/quotas.py."""
    snowflake: Literal["on", "off"] = "on"
    """Whether Snowflake's drivers may log in, on the same port; snowflake/README.md."""
    models: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """What clients and functions put into AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"
