"""Streams made on real threads: order, failures before and after the first byte, clients that go away."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from preheat.gateway.driver import Driver, ThreadBackground
from preheat.kernel.clock import SystemClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.models.contract import (
    ModelDenied,
    ModelFailed,
    ModelInputError,
    ModelThrottled,
    ModelTimeout,
    ModelUnavailable,
    Usage,
)
from preheat.models.limits import Limits
from preheat.models.registry import Model
from preheat.services.bedrock_runtime.service import build
from preheat.services.contract import Platform
from preheat.services.machine import Machine
from preheat.store.database import Database

DEADLINE_S = 90
UNLIMITED = Limits()


class ScriptedGeneration:
    """Says its pieces, waiting for `gate` before each one after the first; raises what is an exception."""

    def __init__(self, script, gate):
        self.usage = Usage(input_tokens=5)
        self.stop_reason, self.stop_sequence = "end_turn", None
        self.closed = threading.Event()
        self._pieces = self._run(script, gate)

    def _run(self, script, gate):
        try:
            for at, piece in enumerate(script):
                if at:
                    assert gate.wait(DEADLINE_S)
                if isinstance(piece, Exception):
                    raise piece
                self.usage.output_tokens += 1
                yield piece
        finally:
            self.closed.set()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._pieces)

    def close(self):
        self._pieces.close()


class ScriptedGenerator:
    def __init__(self, *script):
        self.id = "scripted"
        self.script = script
        self.gate = threading.Event()
        self.made = []

    def generate(self, *args):
        self.made.append(ScriptedGeneration(self.script, self.gate))
        return self.made[-1]

    def count_tokens(self, text):
        return len(text.split())


class Live:
    """The machine on an asyncio loop with real threads."""

    def __init__(self, generator, limits=UNLIMITED):
        self.loop = asyncio.get_running_loop()
        clock, entropy = SystemClock(), SeededEntropy(1)
        self.background = ThreadBackground(self.loop)
        self.db = Database(None)
        self.machine = Machine(self.db, clock, entropy, self.background)
        self.defects = []
        self.machine.on_defect = self.defects.append
        self.driver = Driver(self.loop, self.machine, clock)
        platform = Platform(self.db, clock, entropy, self.background, self.machine, SimpleNamespace())
        model = Model("scripted", "test", limits, generator=generator)
        registry = SimpleNamespace(find=lambda id: model if id == "scripted" else None)
        self.machine.add_service(build(platform, registry))

    def submit(self, operation, **params):
        future = self.loop.create_future()
        task = self.machine.submit("bedrock-runtime", operation, {"modelId": "scripted", **params}, future.set_result)
        return task, asyncio.wait_for(future, DEADLINE_S)

    def close(self):
        self.driver.stop()
        self.background.close()
        self.db.close()


CONVERSATION = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
INVOCATION = {
    "body": b'{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9,'
    b' "messages": [{"role": "user", "content": "hello"}]}'
}


def live(generator, scenario, **options):
    async def main():
        world = Live(generator, **options)
        try:
            return await asyncio.wait_for(scenario(world), 3 * DEADLINE_S)
        finally:
            generator.gate.set()
            world.close()

    return asyncio.run(main())


def attach(loop, channel):
    """(a queue of items, a future with the end)."""
    queue, end = asyncio.Queue(), loop.create_future()
    channel.attach(queue.put_nowait, end.set_result)
    return queue, end


def test_the_first_piece_arrives_before_the_second_is_made():
    generator = ScriptedGenerator("one ", "two")

    async def scenario(world):
        _, reply = world.submit("ConverseStream", **CONVERSATION)
        queue, end = attach(world.loop, (await reply).output["stream"])
        assert await queue.get() == {"messageStart": {"role": "assistant"}}
        assert (await queue.get())["contentBlockDelta"]["delta"] == {"text": "one "}
        assert not generator.gate.is_set() and not end.done()
        generator.gate.set()
        assert (await queue.get())["contentBlockDelta"]["delta"] == {"text": "two"}
        await end
        rest = [queue.get_nowait() for _ in range(queue.qsize())]
        assert [next(iter(event)) for event in rest] == ["contentBlockStop", "messageStop", "metadata"]
        assert rest[2]["metadata"]["usage"] == {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7}

    live(generator, scenario)


FAILURES = [
    (ModelInputError("m"), "ValidationException", 400, "validationException", "validationException"),
    (ModelDenied("m"), "AccessDeniedException", 403, "modelStreamErrorException", "modelStreamErrorException"),
    (ModelThrottled("m"), "ThrottlingException", 429, "throttlingException", "throttlingException"),
    (ModelTimeout("m"), "ModelTimeoutException", 408, "modelStreamErrorException", "modelTimeoutException"),
    (ModelUnavailable("m"), "ServiceUnavailableException", 503, *["serviceUnavailableException"] * 2),
    (ModelFailed("m", 502), "ModelErrorException", 424, *["modelStreamErrorException"] * 2),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure[0]).__name__)
def test_failures_before_the_first_byte_are_http_errors(failure):
    async def scenario(world):
        for operation, params in (
            ("ConverseStream", CONVERSATION),
            ("InvokeModelWithResponseStream", INVOCATION),
            ("Converse", CONVERSATION),
            ("InvokeModel", INVOCATION),
        ):
            error = await world.submit(operation, **params)[1]
            assert isinstance(error, AwsError)
            assert (error.code, error.status) == failure[1:3]
        assert not world.defects

    live(ScriptedGenerator(failure[0]), scenario)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure[0]).__name__)
def test_failures_after_the_first_byte_are_events(failure):
    generator = ScriptedGenerator("one", failure[0])
    generator.gate.set()

    async def scenario(world):
        for operation, params, member, expected in (
            ("ConverseStream", CONVERSATION, "stream", failure[3]),
            ("InvokeModelWithResponseStream", INVOCATION, "body", failure[4]),
        ):
            reply = await world.submit(operation, **params)[1]
            queue, end = attach(world.loop, reply.output[member])
            assert await asyncio.wait_for(end, DEADLINE_S) is None
            events = [queue.get_nowait() for _ in range(queue.qsize())]
            assert events[-1][expected]["message"] == "m"
            assert not any("messageStop" in event for event in events)

    live(generator, scenario)


def test_our_own_mistake_is_an_event_and_a_log_line():
    generator = ScriptedGenerator("one", RuntimeError("secret detail"))
    generator.gate.set()

    async def scenario(world):
        queue, end = attach(world.loop, (await world.submit("ConverseStream", **CONVERSATION)[1]).output["stream"])
        await asyncio.wait_for(end, DEADLINE_S)
        events = [queue.get_nowait() for _ in range(queue.qsize())]
        assert "secret" not in events[-1]["internalServerException"]["message"]
        assert "secret detail" in world.defects[0]

    live(generator, scenario)


def test_a_client_that_goes_away_stops_generation():
    generator = ScriptedGenerator("one ", *["more "] * 1_000)

    async def scenario(world):
        channel = (await world.submit("ConverseStream", **CONVERSATION)[1]).output["stream"]
        queue, _ = attach(world.loop, channel)
        await queue.get()
        channel.cancel()
        generator.gate.set()
        made = generator.made[0]
        assert await asyncio.to_thread(made.closed.wait, DEADLINE_S)
        assert made.usage.output_tokens < 1_000

    live(generator, scenario)


def test_a_client_that_goes_away_before_the_answer_stops_generation():
    generator = ScriptedGenerator("one ", *["more "] * 1_000)

    async def scenario(world):
        task, reply = world.submit("Converse", **CONVERSATION)
        waiting = asyncio.ensure_future(reply)
        await asyncio.to_thread(_until, lambda: generator.made)
        world.machine.cancel(task)
        generator.gate.set()
        assert await asyncio.to_thread(generator.made[0].closed.wait, DEADLINE_S)
        assert generator.made[0].usage.output_tokens < 1_000
        waiting.cancel()

    live(generator, scenario)


def test_slow_answers_do_not_hold_up_the_rest():
    """A server that is slow to answer keeps none of the few threads on which everybody's offloaded work runs."""
    generator = ScriptedGenerator("one ", "two")

    async def scenario(world):
        slow = [asyncio.ensure_future(world.submit("Converse", **CONVERSATION)[1]) for _ in range(12)]
        await asyncio.to_thread(_until, lambda: len(generator.made) == 12)
        counted = await world.submit("CountTokens", input={"converse": CONVERSATION})[1]
        assert counted.output == {"inputTokens": 1}
        assert not any(future.done() for future in slow)
        generator.gate.set()
        answers = await asyncio.gather(*slow)
        assert {reply.output["usage"]["outputTokens"] for reply in answers} == {2}

    live(generator, scenario)


def test_a_stream_settles_its_tokens_at_the_end():
    generator = ScriptedGenerator("one ", "two")
    large = {**CONVERSATION, "inferenceConfig": {"maxTokens": 90}}

    async def scenario(world):
        reply = await world.submit("ConverseStream", **large)[1]
        refused = await world.submit("ConverseStream", **large)[1]
        assert refused.code == "ThrottlingException"
        _, end = attach(world.loop, reply.output["stream"])
        generator.gate.set()
        await end
        assert not isinstance(await world.submit("ConverseStream", **large)[1], AwsError)

    live(generator, scenario, limits=Limits(tokens_per_minute=100))


def _until(condition):
    ticker = threading.Event()
    for _ in range(DEADLINE_S * 100):
        if condition():
            return
        ticker.wait(0.01)
    raise AssertionError("did not come true")
