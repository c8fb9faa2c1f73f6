"""The servers under comparison, each in a process of its own: Preheat in both durability modes, and peers that are
installed into a temporary directory. Sends plain HTTP; no SDK is in the measured path."""

import contextlib
import glob
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

START_S = 60
PREHEAT = ("--event-rules", "1000")
INSTALL_S = 300
MINISTACK = ["ministack==1.5.33", "boto3", "numpy"]
MOTO = ["moto[server,sqs,s3,dynamodb,sns,events]==5.2.5"]
LOCALSTACK = [
    "localstack-core[base-runtime,runtime]==4.14.0", "localstack-ext==4.14.0", "cbor2<5.8", "pyopenssl==25.3.0",
    "service_identity",
]  # fmt: skip
ELASTICMQ = ["elasticmq@0.7.1"]
OFFLINE = ["serverless@3.40.0", "serverless-offline@13.10.1"]
ELASTICMQ_CONFIG = """include classpath("application.conf")
node-address { protocol = http, host = localhost, port = %(port)d, context-path = "" }
rest-sqs { enabled = true, bind-port = %(port)d, bind-hostname = "127.0.0.1", sqs-limits = strict }
"""
COLD_RUNS = 4
OFFLINE_FUNCTIONS = "".join(f"  light-{number}:\n    handler: index.handler\n" for number in range(COLD_RUNS))
OFFLINE_CONFIG = f"""service: bench
frameworkVersion: "3"
provider: {{ name: aws, runtime: nodejs20.x, region: us-east-1, timeout: 30 }}
plugins: [serverless-offline]
functions:
{OFFLINE_FUNCTIONS}"""
OFFLINE_CODE = "exports.handler = async (event) => event;\n"
"""JavaScript, which it runs in threads of its own process: its fastest way."""
FEATURES = {
    "preheat": {
        "start", "sqs", "depth", "storage", "lambda", "trigger", "sleepers", "fifo", "fanout", "events", "polls",
        "cold",
    },
    "preheat-power": {"start", "sqs", "storage", "fifo", "fanout", "events"},
    "ministack": {
        "start", "sqs", "depth", "storage", "lambda", "trigger", "sleepers", "fifo", "fanout", "events", "polls",
    },
    "moto": {"start", "sqs", "storage", "fifo", "fanout", "events", "polls"},
    "localstack": {"start", "sqs", "storage"},
    "elasticmq": {"start", "sqs", "depth", "polls"},
    "serverless-offline": {"lambda"},
}  # fmt: skip
"""What each can do without Docker and without downloads at run time."""
QUICK = {
    **FEATURES,
    "preheat-power": {"start", "sqs"},
    "ministack": {"start", "sqs", "storage", "lambda", "trigger", "fanout", "events"},
    "moto": {"start", "sqs", "fanout", "events"},
    "elasticmq": {"start", "sqs"},
}
"""What of it a quick run asks for: of Preheat everything, of the others what Preheat is compared by."""
QUICK_SERVERS = ("preheat", "preheat-power", "ministack", "moto", "elasticmq")
SCOPE = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/%s/aws4_request, SignedHeaders=host;x-amz-date, Signature="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(pid: int) -> set[int]:
    """A process and everything below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    found, grown = {pid}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found


def memory_mb(pid: int) -> float:
    """Memory of a process and everything below it, MB; a page that several of them share is counted once."""
    return round(sum(_share_kb(member) for member in family(pid)) / 1_000, 1)


def _share_kb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1.024
    return 0.0


def path_of(url: str) -> str:
    return urllib.parse.urlsplit(url).path


def python313() -> str | None:
    """An interpreter of Python 3.13: LocalStack 4.14 does not run on every version."""
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    candidates = [*sorted(glob.glob(f"{root}/versions/3.13*/bin/python3.13")), shutil.which("python3.13")]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


class PeerHome:
    """A directory with the peers; a temporary one is removed at the end. `missing`: peer -> why it is not there."""

    def __init__(self, names: list[str], keep: Path | None = None) -> None:
        self.path = keep or Path(tempfile.mkdtemp(prefix="preheat-peers-"))
        self._kept = keep is not None
        self.missing: dict[str, str] = {}
        with ThreadPoolExecutor() as pool:
            for name, why in zip(names, pool.map(self._install, names), strict=True):
                if why:
                    self.missing[name] = why

    def _install(self, name: str) -> str | None:
        mark = self.path / f"{name}.installed"
        if mark.exists():
            return None
        self.path.mkdir(parents=True, exist_ok=True)
        if name == "elasticmq":
            why = self._npm(name, ELASTICMQ) if shutil.which("java") else "it needs java (17), which is not here"
        elif name == "serverless-offline":
            why = self._npm(name, OFFLINE)
        elif name == "localstack":
            python = python313()
            why = self._pip(name, python, LOCALSTACK) if python else "it needs Python 3.13, which is not here"
        else:
            why = self._pip(name, sys.executable, MINISTACK if name == "ministack" else MOTO)
        if why is None:
            mark.touch()
        return why

    def _pip(self, name: str, python: str, packages: list[str]) -> str | None:
        venv = self.path / name
        return _command([python, "-m", "venv", str(venv)]) or _command(
            [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages]
        )

    def _npm(self, name: str, packages: list[str]) -> str | None:
        if shutil.which("npm") is None:
            return "it needs npm, which is not here"
        return _command(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(self.path / name), *packages])

    def close(self) -> None:
        if not self._kept:
            shutil.rmtree(self.path, ignore_errors=True)


def _command(command: list[str]) -> str | None:
    """None, or why it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{type(error).__name__} running {Path(command[0]).name}"
    lines = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "npm error"))]
    return None if done.returncode == 0 else (lines or [f"{Path(command[0]).name} exited {done.returncode}"])[-1]


class Server:
    """One server: `start()` gives (seconds to the first answer, seconds to the first CreateQueue). `quick`: cases take
    their shortest form."""

    def __init__(self, name: str, home: PeerHome | None = None, quick: bool = False) -> None:
        self.name = name
        self.quick = quick
        self.home = home
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        self.work = Path(tempfile.mkdtemp(prefix=f"preheat-bench-{name}-"))
        self.protocol = "query" if name == "elasticmq" else "json"
        self.function_prefix = "bench-dev-" if name == "serverless-offline" else ""
        """What precedes the names of functions; "" where functions are made by the cases themselves."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _command(self) -> tuple[list[str], dict[str, str]]:
        if self.name.startswith("preheat"):
            mode = "power" if self.name == "preheat-power" else "process"
            command = [str(Path(sys.executable).parent / "preheat"), "serve", "--port", str(self.port)]
            return [*command, *PREHEAT, "--state", str(self.work / "state"), "--durability", mode], {}
        assert self.home is not None
        bin_ = self.home.path / self.name / "bin"
        if self.name == "moto":
            return [str(bin_ / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)], {}
        if self.name == "elasticmq":
            config = self.work / "elasticmq.conf"
            config.write_text(ELASTICMQ_CONFIG % {"port": self.port})
            jar = self.home.path / "elasticmq/node_modules/elasticmq/elasticmq-server-0.7.1.jar"
            opened = ["--add-opens", "java.base/java.util.regex=ALL-UNNAMED"]
            return ["java", *opened, f"-Dconfig.file={config}", "-jar", str(jar)], {}
        if self.name == "serverless-offline":
            modules = self.home.path / self.name / "node_modules"
            (self.work / "serverless.yml").write_text(OFFLINE_CONFIG)
            (self.work / "index.js").write_text(OFFLINE_CODE)
            (self.work / "node_modules").symlink_to(modules)
            ports = ["--lambdaPort", str(self.port), "--httpPort", str(free_port())]
            command = ["node", str(modules / "serverless/bin/serverless.js"), "offline", "start", *ports]
            return command, {"SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off"}
        if self.name == "localstack":
            return [str(bin_ / "python"), "-m", "localstack.runtime.main"], {
                "HOME": str(self.work), "FILESYSTEM_ROOT": str(self.work / "root"), "ACTIVATE_PRO": "0",
                "GATEWAY_LISTEN": f"127.0.0.1:{self.port}", "SKIP_SSL_CERT_DOWNLOAD": "1", "DISABLE_EVENTS": "1",
                "LS_LOG": "warning",
            }  # fmt: skip
        variables = {"GATEWAY_PORT": str(self.port), "LOG_LEVEL": "WARNING", "LAMBDA_EXECUTOR": "local"}
        return [str(bin_ / "ministack")], variables

    def start(self) -> tuple[float, float]:
        """Raises RuntimeError with the end of the server's log when it does not come."""
        command, variables = self._command()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        log = self.work / "log"
        with log.open("wb") as out:
            started = time.perf_counter()
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.work, start_new_session=True,
                env=environment | variables,
            )  # fmt: skip
        answered = None
        while True:
            if time.perf_counter() - started > START_S or self.process.poll() is not None:
                raise RuntimeError(f"{self.name} did not start: {log.read_text(errors='replace')[-300:]}")
            try:
                status, _ = self.request("GET", "/_preheat/health" if self.name.startswith("preheat") else "/")
                answered = answered or time.perf_counter() - started
                if status < 500 and (self.function_prefix or self.create_queue("bench-first")):
                    return answered, time.perf_counter() - started
            except (OSError, http.client.HTTPException, RuntimeError):
                time.sleep(0.005)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def api(self, service: str, target: str, timeout: float = 60, **params) -> dict:
        """One call in the JSON protocol. Raises RuntimeError for an error answer."""
        headers = {
            "X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.0", "X-Amz-Date": "20260101T000000Z",
            "Authorization": SCOPE % service + "0" * 64,
        }  # fmt: skip
        status, body = self.request("POST", "/", json.dumps(params).encode(), headers, timeout)
        if status >= 300:
            raise RuntimeError(f"{target}: {status} {body[:200]!r}")
        return json.loads(body) if body else {}

    def form(self, service: str, action: str, version: str, members: dict[str, str], path: str = "/") -> str:
        """One call in the Query protocol: the answer's XML. Raises RuntimeError for an error answer."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded", "X-Amz-Date": "20260101T000000Z",
            "Authorization": SCOPE % service + "0" * 64,
        }  # fmt: skip
        body = urllib.parse.urlencode({"Action": action, "Version": version, **members}).encode()
        status, answer = self.request("POST", path, body, headers)
        if status >= 300:
            raise RuntimeError(f"{action}: {status} {answer[:200]!r}")
        return answer.decode()

    def rest(self, service: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """One signed REST request. Raises RuntimeError for an error answer."""
        signed = {"Authorization": SCOPE % service + "0" * 64, "X-Amz-Date": "20260101T000000Z"}
        signed["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        status, answer = self.request(method, path, body, signed | headers)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:200]!r}")
        return status, answer

    def create_queue(self, name: str) -> str:
        """A queue with a visibility timeout of ten minutes, a FIFO queue if the name says so; its URL."""
        if self.protocol == "json":
            attributes = {"VisibilityTimeout": "600"}
            if name.endswith(".fifo"):
                attributes["FifoQueue"] = "true"
            return self.api("sqs", "AmazonSQS.CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]
        form = {"QueueName": name, "Attribute.1.Name": "VisibilityTimeout", "Attribute.1.Value": "600"}
        body = self.form("sqs", "CreateQueue", "2012-11-05", form)
        return body.partition("<QueueUrl>")[2].partition("</QueueUrl>")[0]

    def send(self, queue: str, body: str) -> None:
        if self.protocol == "json":
            self.api("sqs", "AmazonSQS.SendMessage", QueueUrl=queue, MessageBody=body)
        else:
            self.form("sqs", "SendMessage", "2012-11-05", {"MessageBody": body}, path_of(queue))

    def settle(self) -> None:
        """Wait until it answers again: what a load left behind is still being worked on."""
        self.request("GET", "/", timeout=START_S)

    def memory_mb(self) -> float:
        assert self.process is not None
        return memory_mb(self.process.pid)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)
        shutil.rmtree(self.work, ignore_errors=True)
