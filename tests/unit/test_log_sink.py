"""Lines of functions on their way into the store: together, soon, none lost at the end."""

import pytest

from preheat.app import LOG_DELAY_S, LOG_SLICE, LogSink
from preheat.execution.contract import LogLine
from preheat.services.logs.service import build
from tests.support.inprocess import InProcess


class World(InProcess):
    def __init__(self) -> None:
        super().__init__(build)
        self.timers: list[tuple[float, object]] = []
        self.sink = LogSink(lambda delay, action: self.timers.append((delay, action)))
        self.sink.machine = self.machine
        self.ticks = 0
        self.settle()

    def fire(self) -> None:
        """Let the one timer come; counts the transactions that follow."""
        ((delay, action),) = self.timers
        assert delay == LOG_DELAY_S
        self.timers.clear()
        action()
        while self.machine.has_work():
            self.machine.tick()
            self.ticks += 1

    def messages(self, stream: str) -> list[str]:
        found = self("logs", "GetLogEvents", logGroupName="g", logStreamName=stream, startFromHead=True, limit=10_000)
        return [event["message"] for event in found["events"]]


def line(stream: str, text: str) -> LogLine:
    return LogLine("g", stream, 1_700_000_000_000, text)


@pytest.fixture
def world():
    return World()


def test_the_lines_of_many_invocations_are_one_transaction(world):
    for number in range(20):
        world.sink([line(f"s{number % 2}", f"START {number}"), line(f"s{number % 2}", f"END {number}")])
    assert not world.machine.has_work()
    world.fire()
    assert world.ticks == 1 and world.timers == []
    assert world.messages("s0") == [f"{word} {number}" for number in range(0, 20, 2) for word in ("START", "END")]


def test_very_many_are_written_slice_by_slice(world):
    world.sink([line(f"s{number % 3}", str(number)) for number in range(3 * LOG_SLICE)])
    world.fire()
    assert world.ticks == 3
    assert world.messages("s1") == [str(number) for number in range(1, 3 * LOG_SLICE, 3)]


def test_what_comes_meanwhile_waits_for_the_next_turn(world):
    world.sink([line("s", "one")])
    ((_, action),) = world.timers
    world.timers.clear()
    action()
    world.sink([line("s", "two")])
    world.settle()
    assert world.messages("s") == ["one"] and len(world.timers) == 1
    world.fire()
    assert world.messages("s") == ["one", "two"] and world.timers == []


def test_the_end_writes_what_is_left(world):
    world.sink([line("s", "one")])
    world.sink.close(world.db, world.clock.now())
    assert world.messages("s") == ["one"]
