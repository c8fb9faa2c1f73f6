"""A machine without sockets: operations called directly, under a clock that the test moves."""

from types import SimpleNamespace
from typing import Any

from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import InlineBackground
from preheat.services.contract import Platform, Reply
from preheat.services.machine import Machine
from preheat.store.database import Database


class InProcess:
    """`InProcess(build_sqs, build_s3)`; then `world("sqs", "CreateQueue", QueueName="q")` gives the output or raises
    the AwsError. A call that waits is driven by moving the clock. `directory=None` keeps the state in memory. `without`
    names loops that are left out: a year is long for one that looks every minute."""

    def __init__(
        self, *builders: Any, directory=None, seed: int = 1, settings: Any = None, region: str = "us-east-1",
        without: tuple[str, ...] = (),
    ):  # fmt: skip
        self.clock = ManualClock()
        self.entropy = SeededEntropy(seed)
        self.background = InlineBackground()
        self.db = Database(directory)
        self.machine = Machine(self.db, self.clock, self.entropy, self.background)
        self.defects: list[str] = []
        self.machine.on_defect = self.defects.append
        self.scope = Scope(region=region)
        self.settings = settings or SimpleNamespace(state=directory, endpoint="http://127.0.0.1:4566", iam="off")
        self.platform = Platform(self.db, self.clock, self.entropy, self.background, self.machine, self.settings)
        for build in builders:
            service = build(self.platform)
            self.machine.add_service(service)
            for loop in getattr(service, "loops", ()):
                if loop.name not in without:
                    self.machine.add_loop(loop)

    def start(self, service: str, operation: str, **params: Any) -> list[Any]:
        """Submit without waiting; the returned list gets the reply when it comes."""
        replies: list[Any] = []
        self.machine.submit(service, operation, params, replies.append, scope=self.scope)
        self.settle()
        return replies

    def settle(self, rounds: int = 1_000) -> None:
        """Tick until nothing is ready at the present time."""
        for _ in range(rounds):
            if not self.machine.has_work():
                due = self.machine.wake_at()
                if due is None or due > self.clock.now():
                    return
            self.machine.tick()
        raise AssertionError("the machine does not come to rest")

    def advance(self, seconds: float) -> None:
        """Move the clock, stopping at every moment the machine asked to be woken."""
        end = self.clock.now() + seconds
        while True:
            self.settle()
            due = self.machine.wake_at()
            if due is None or due > end:
                break
            self.clock.move_to(due)
        self.clock.move_to(end)
        self.settle()

    def __call__(self, service: str, operation: str, **params: Any) -> Any:
        replies = self.start(service, operation, **params)
        for _ in range(10_000):
            if replies:
                break
            due = self.machine.wake_at()
            assert due is not None, "the call neither answers nor waits for a time"
            self.clock.move_to(due)
            self.settle()
        assert not self.defects, self.defects
        reply = replies[0]
        if isinstance(reply, AwsError):
            raise reply
        assert isinstance(reply, Reply)
        return reply.output
