"""Deployment packages and a machine with Lambda on it, for tests."""

import io
import zipfile
from functools import partial
from typing import Any

from preheat.services.awslambda.service import build as build_lambda
from tests.support.inprocess import InProcess
from tests.support.scripted_executor import ScriptedExecutor

ROLE = "arn:aws:iam::000000000000:role/worker"


def make_zip(files: dict[str, str | bytes] | None = None) -> bytes:
    """A zip with these files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in (files or {"app.py": "def handler(event, context):\n    return event\n"}).items():
            archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), text)
    return buffer.getvalue()


class LambdaWorld(InProcess):
    """`InProcess` with Lambda over a `ScriptedExecutor`, and other services as asked."""

    def __init__(self, *builders: Any, limit: int = 1_000, **arguments: Any) -> None:
        self.executor = ScriptedExecutor(limit)
        super().__init__(*builders, partial(build_lambda, executor=self.executor), **arguments)
        self.executor.attach(self.machine)

    @property
    def functions(self) -> Any:
        return self.machine.services["lambda"]

    def create(self, name: str = "f", **params: Any) -> Any:
        code = params.pop("Code", None) or {"ZipFile": make_zip()}
        settings = {"Role": ROLE, "Runtime": "python3.12", "Handler": "app.handler", **params}
        return self("lambda", "CreateFunction", FunctionName=name, Code=code, **settings)


class TriggerWorld(LambdaWorld):
    """`LambdaWorld` with SQS and the trigger loops; notices are kept in `notices`."""

    def __init__(self, *builders: Any, handlers: Any = None, sources: Any = None, **arguments: Any) -> None:
        from preheat.services.sqs.service import build as build_sqs
        from preheat.triggers.build import build_triggers

        super().__init__(build_sqs, *builders, **arguments)
        self.notices: list[Any] = []
        self.loops = build_triggers(self.platform, self.functions, self.notices.append, handlers, sources)
        for loop in self.loops:
            self.machine.add_loop(loop)

    @property
    def poller(self) -> Any:
        return self.loops[1]

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        """(URL, ARN) of a new queue."""
        url = self("sqs", "CreateQueue", QueueName=name, Attributes=attributes)["QueueUrl"]
        return url, f"arn:aws:sqs:us-east-1:000000000000:{name}"

    def send(self, url: str, *bodies: str, **params: Any) -> None:
        for body in bodies:
            self("sqs", "SendMessage", QueueUrl=url, MessageBody=body, **params)

    def counts(self, url: str) -> tuple[int, int, int]:
        """(visible, in flight, delayed)."""
        values = self("sqs", "GetQueueAttributes", QueueUrl=url, AttributeNames=["All"])["Attributes"]
        names = ("", "NotVisible", "Delayed")
        return tuple(int(values[f"ApproximateNumberOfMessages{name}"]) for name in names)

    def receive(self, url: str) -> list[Any]:
        request = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "WaitTimeSeconds": 0}
        return self("sqs", "ReceiveMessage", QueueUrl=url, **request).get("Messages", [])

    def map(self, queue_arn: str, function: str = "f", **params: Any) -> str:
        """The UUID of a new mapping."""
        return self("lambda", "CreateEventSourceMapping", EventSourceArn=queue_arn, FunctionName=function, **params)[
            "UUID"
        ]
