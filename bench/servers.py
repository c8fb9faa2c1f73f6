"""The servers under comparison, each in a process of its own: Preheat in both durability modes, and peers that are
installed into a temporary environment."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_S = 90
PEERS = {"ministack": ["ministack==1.5.33"], "moto": ["moto[server,sqs,s3,dynamodb]==5.2.5"]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its children, MB."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(path.name) == pid or int(fields[1]) == pid:
                total += int((path / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return round(total, 1)


class PeerHome:
    """A temporary environment with the peers, removed at the end."""

    def __init__(self, names: list[str]) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="preheat-peers-"))
        self.missing: dict[str, str] = {}
        subprocess.run([sys.executable, "-m", "venv", str(self.path)], check=True)
        for name in names:
            done = subprocess.run(
                [self.path / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS[name]],
                capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                self.missing[name] = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip failed"

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Server:
    """One server: `start()` gives (seconds to first answer, seconds to first CreateQueue)."""

    def __init__(self, name: str, home: PeerHome | None) -> None:
        self.name = name
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.work = Path(tempfile.mkdtemp(prefix=f"preheat-bench-{name}-"))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> tuple[list[str], dict[str, str]]:
        if self.name.startswith("preheat"):
            mode = "power" if self.name == "preheat-power" else "process"
            command = [str(Path(sys.executable).parent / "preheat"), "serve", "--port", str(self.port)]
            return [*command, "--state", str(self.work / "state"), "--durability", mode], {}
        assert self.home is not None
        bin_ = self.home.path / "bin"
        if self.name == "moto":
            return [str(bin_ / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)], {}
        variables = {"GATEWAY_PORT": str(self.port), "LOG_LEVEL": "WARNING", "LAMBDA_EXECUTOR": "local"}
        return [str(bin_ / "ministack")], variables

    def start(self) -> tuple[float, float]:
        command, variables = self._command()
        started = time.perf_counter()
        log = (self.work / "log").open("wb")
        self.process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.work, start_new_session=True,
            env={**os.environ, **variables},
        )  # fmt: skip
        answered = None
        while True:
            if time.perf_counter() - started > START_S or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {(self.work / 'log').read_text()[-500:]}")
            try:
                urllib.request.urlopen(self.endpoint + "/_preheat/health", timeout=1).read()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.005)
        answered = time.perf_counter() - started
        self.client("sqs").create_queue(QueueName="bench-first")
        return answered, time.perf_counter() - started

    def client(self, service: str):
        import boto3
        from botocore.config import Config

        return boto3.client(
            service, endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 0}, read_timeout=120, s3={"addressing_style": "path"}),
        )  # fmt: skip

    def memory_mb(self) -> float:
        assert self.process is not None
        return rss_mb(self.process.pid)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(15)
        shutil.rmtree(self.work, ignore_errors=True)
