"""How fast a streamed answer may leave."""

import pytest

from preheat.execution.flow import AWS_BANDWIDTH, MIB, Bandwidth, Flow
from preheat.kernel.clock import ManualClock
from preheat.kernel.stream import Channel


class Source:
    """A worker that gives a chunk of ten bytes whenever it is read from."""

    def __init__(self, bandwidth: Bandwidth | None) -> None:
        self.clock = ManualClock()
        self.channel = Channel()
        self.paused = False
        self.got = 0
        self.flow = Flow(self.channel, self, bandwidth)
        self.channel.attach(self._take, lambda error: None)

    def _take(self, chunk: bytes) -> None:
        self.got += len(chunk)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def read(self, chunks: int) -> None:
        """Read as long as nobody objects."""
        for _ in range(chunks):
            if self.paused:
                return
            self.flow.send(b"x" * 10, self.clock.monotonic())

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.flow.look(self.clock.monotonic())


def test_the_rest_follows_at_the_rate():
    source = Source(Bandwidth(free_bytes=100, per_second=10))
    source.read(10)
    assert source.got == 100 and not source.paused
    for second in range(1, 6):
        source.read(1_000)
        assert source.got == 100 + 10 * second and source.paused
        source.wait(0.9)
        assert source.paused
        source.wait(0.1)
        assert not source.paused


def test_what_was_not_used_in_time_may_be_made_up_for():
    source = Source(Bandwidth(100, 10))
    source.read(11)
    source.wait(5)
    source.read(1_000)
    assert source.got == 100 + 10 * 6


def test_without_a_rule_only_the_client_holds_it_back():
    source = Source(None)
    source.read(1_000)
    assert source.got == 10_000
    source.channel.pause()
    source.read(1_000)
    assert source.got == 10_010 and source.paused
    source.wait(100)
    assert source.paused
    source.channel.resume()
    assert not source.paused


def test_client_and_rule_must_both_agree():
    source = Source(Bandwidth(0, 10))
    source.channel.pause()
    source.read(1)
    source.channel.resume()
    assert source.paused
    source.channel.pause()
    source.wait(1)
    assert source.paused
    source.channel.resume()
    assert not source.paused


@pytest.mark.parametrize("bandwidth", [None, Bandwidth(0, 10)])
def test_when_the_client_leaves_the_handler_runs_on_unhindered(bandwidth):
    source = Source(bandwidth)
    source.channel.pause()
    source.read(1)
    source.channel.cancel()
    assert not source.paused
    source.channel.paused = False
    source.read(100)
    assert not source.paused


def test_the_numbers_of_aws():
    assert Bandwidth(6 * MIB, 2 * MIB) == AWS_BANDWIDTH
