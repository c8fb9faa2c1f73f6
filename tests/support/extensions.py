"""An environment's extensions without processes: `World` stands for pool, crew and event loop."""

import json
from pathlib import Path

from preheat.execution.contract import FunctionSpec, Invocation
from preheat.execution.extensions.house import Extensions
from preheat.execution.workers.contract import WorkRequest
from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy

REGISTER = "/2020-01-01/extension/register"
NEXT = "/2020-01-01/extension/event/next"
TELEMETRY = "/2022-07-01/telemetry"
LOGS = "/2020-08-15/logs"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
HTTP = {"protocol": "HTTP", "URI": "http://sandbox.localdomain:8080/in"}



class Line:
    """A connection: `answers` holds (status, document, headers)."""

    def __init__(self):
        self.answers = []
        self.parked = 0

    def park(self):
        self.parked += 1

    def answer(self, status, document, headers=None):
        self.answers.append((status, document, headers or {}))


class Carrier:
    def __init__(self, destination):
        self.destination = destination
        self.batches = []
        self.done = []
        self.closed = False

    def send(self, events, done):
        self.batches.append([json.loads(event) for event in events])
        self.done.append(done)

    def close(self):
        self.closed = True


class World:
    """Of a function `f`; `programs` are its external extensions. `told` is what the registry says, `lines` the log."""

    def __init__(self, directory: Path, *programs: str, **spec):
        layer = directory / "layer"
        (layer / "extensions").mkdir(parents=True)
        for name in programs:
            (layer / "extensions" / name).write_text("")
        values = {"account": "123456789012", **spec}
        self.spec = FunctionSpec(ARN, "f", "7", "1", "python3.12", "app.handler", directory, (layer,), **values)
        self.clock = ManualClock()
        self.entropy = SeededEntropy(1)
        self.lines, self.told, self.measures, self.timers, self.carriers = [], [], [], [], []
        self.extensions = Extensions(self.spec, self, "on-demand", "instance")
        self.api = self.extensions.connect(self, self)
        self.invocation = Invocation("r-1", self.spec, b"{}", trace_id="Root=1-2;Parent=ab;Sampled=1")

    def identifier(self):
        return self.entropy.uuid()

    def now(self):
        return self.clock.now()

    peer_now = now

    def monotonic(self):
        return self.clock.monotonic()

    def log(self, message):
        self.lines.append(message)

    def flush(self):
        self.told.append("flush")

    def measured(self, invocation, post_runtime_ms):
        self.measures.append(round(post_runtime_ms, 3))

    def registered(self):
        self.told.append("registered")

    def settled(self):
        self.extensions.settled()
        self.told.append("settled")

    def failed(self, extension):
        self.told.append(("failed", extension.name, extension.state, extension.error_type))

    def later(self, delay_s, action):
        timer = [delay_s, action]
        self.timers.append(timer)
        return lambda: timer in self.timers and self.timers.remove(timer)

    def carrier(self, destination):
        self.carriers.append(Carrier(destination))
        return self.carriers[-1]

    def fire(self):
        timers, self.timers = self.timers, []
        for _, action in timers:
            action()

    def ask(self, method, path, body=b"", **headers):
        """The answer, or the connection when it is parked."""
        line = Line()
        names = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        assert self.api.take(line, method, path, names, body)
        return line if line.parked and not line.answers else line.answers[0]

    def register(self, name, *events):
        status, _, headers = self.ask(b"POST", REGISTER, {"events": events}, Lambda_Extension_Name=name)
        assert status == 200
        return headers["Lambda-Extension-Identifier"]

    def next(self, identifier):
        return self.ask(b"GET", NEXT, Lambda_Extension_Identifier=identifier)

    def invoke(self):
        self.extensions.started(self.invocation)
        self.extensions.invoke(self.invocation, WorkRequest("r-1", b"{}", 1_700_000_003_000, ARN, "Root=1-2"))

    def subscribe(self, identifier, path=TELEMETRY, **changes):
        body = {"schemaVersion": "2022-12-13", "types": ["platform", "function", "extension"], "destination": HTTP}
        if path == LOGS:
            del body["schemaVersion"]
        return self.ask(b"PUT", path, body | changes, Lambda_Extension_Identifier=identifier)


def refusal(answer):
    """Status and error type."""
    return answer[0], answer[1]["errorType"]
