"""A live server in a process of its own, and clients for it."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

DEADLINE_S = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Any, deadline_s: float = DEADLINE_S, what: str = "the condition") -> Any:
    """The first truthy value of `condition()`; fails when there is none by the deadline. What it looks at may not
    exist yet (a log group comes with its first line): ResourceNotFoundException counts as not yet."""
    end = time.monotonic() + deadline_s
    pause = 0.005
    while True:
        try:
            value = condition()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
            value = None
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_s} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


class LiveServer:
    """`preheat serve` on a free port. `kill()` is SIGKILL; `start()` again on the same state is a restart."""

    def __init__(self, state: Path, *arguments: str) -> None:
        self.state = state
        self.arguments = arguments
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.log = state.parent / f"{state.name}.log"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "LiveServer":
        command = [Path(sys.executable).parent / "preheat", "serve", "--port", str(self.port), "--state", self.state]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, command), *self.arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_for(self._ready, what="the server's health")
        return self

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        try:
            return self.get("/_preheat/health")[0] == 200
        except OSError:
            return False

    def get(self, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None):
        """(status, headers, body) of one plain HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def advance(self, seconds: float) -> None:
        assert self.get(f"/_preheat/clock/advance?seconds={seconds}", "POST")[0] == 200

    def client(self, service: str, **config: Any) -> Any:
        import boto3
        from botocore.config import Config

        settings = {"retries": {"max_attempts": 0}, "read_timeout": 60, **config}
        return boto3.client(
            service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(**settings),
        )  # fmt: skip

    def resource(self, service: str) -> Any:
        import boto3

        return boto3.resource(
            service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test",
        )  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Environment variables for a client process such as the AWS CLI."""
        return {
            **os.environ, "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "",
        }  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0 if self.process is None else self.process.returncode
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
