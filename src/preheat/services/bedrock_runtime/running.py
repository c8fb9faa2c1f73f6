"""Carries one call through: admitted, computed on another thread, answered whole or piece by piece, accounted for."""

import traceback
from collections.abc import Callable, Iterator
from typing import Any

from preheat.kernel.clock import Clock
from preheat.kernel.stream import Channel
from preheat.models.contract import Generation, ModelError
from preheat.models.limits import RateLimit
from preheat.models.registry import Model
from preheat.services.bedrock_runtime.domain import Answer
from preheat.services.bedrock_runtime.errors import DEFECT, to_aws, to_event
from preheat.services.contract import Deferred, Outcome, Platform, Reply

Record = Callable[[str, float, str], None]


class Reservation:
    """Tokens taken from a model's rate when a call was admitted; corrected once, on the core's thread."""

    def __init__(self, rate: RateLimit, reserved: int, clock: Clock) -> None:
        self._rate = rate
        self._reserved = reserved
        self._clock = clock
        self._settled = False

    def settle(self, used: int) -> None:
        if not self._settled:
            self._settled = True
            self._rate.settle(self._reserved, used, self._clock.now())


class Work:
    """One admitted call. `cancelled` is set when the client has gone; `on_cancel` is told."""

    def __init__(self, platform: Platform, reservation: Reservation, record: Record) -> None:
        """`record(name, value, unit)` keeps a metric of the model."""
        self.platform = platform
        self.reservation = reservation
        self.record = record
        self.first_token_ms: int | None = None
        self.on_finish: Callable[[], None] | None = None
        self.cancelled = False
        self.on_cancel: Callable[[], None] | None = None
        self._started = platform.clock.monotonic()

    def latency_ms(self) -> int:
        return round((self.platform.clock.monotonic() - self._started) * 1_000)

    def finish(self, read: int, written: int) -> None:
        """The call is over: tokens are accounted for and metrics kept. On the core's thread."""
        self.reservation.settle(read + written)
        self.record("Invocations", 1.0, "Count")
        self.record("InvocationLatency", self.latency_ms(), "Milliseconds")
        self.record("InputTokenCount", read, "Count")
        self.record("OutputTokenCount", written, "Count")
        if self.first_token_ms is not None:
            self.record("TimeToFirstToken", self.first_token_ms, "Milliseconds")
        if self.on_finish is not None:
            self.on_finish()

    def cancel(self) -> None:
        self.cancelled = True
        self.reservation.settle(0)
        if self.on_cancel is not None:
            self.on_cancel()

    def deferred(self, compute: Callable[[], Any], then: Callable[[Any], Outcome], model_id: str) -> Deferred:
        """`compute` off the core's thread, then `then` with its value; a backend's failure becomes AWS's error. It may
        wait for a server for a minute, so it runs where streams run and not among the few threads of `run`."""

        def produce() -> Iterator[Any]:
            yield compute()

        def start(resolve: Callable[[Any], None]) -> None:
            values: list[Any] = []

            def end(error: BaseException | None) -> None:
                if isinstance(error, Exception):
                    self.reservation.settle(0)
                    values.append(failure(error, model_id))
                resolve(values[0])

            self.platform.background.stream(produce).attach(values.append, end)

        return Deferred(start, lambda ctx, value: then(value), self.cancel)

    def channel(
        self, events: Callable[[], Iterator[dict[str, Any]]], used: Callable[[], tuple[int, int]], timeout_event: bool
    ) -> Channel:
        """Events made on another thread. Errors become the stream's last event; at the end, or when the client goes
        away, what was `used` (tokens read, tokens written) is accounted for."""
        source = self.platform.background.stream(lambda: self._guarded(events(), timeout_event))
        out = Channel()

        def end(error: BaseException | None) -> None:
            self.finish(*used())
            out.close(error)

        def cancel() -> None:
            self.cancelled = True
            source.cancel()
            self.finish(*used())

        out.on_cancel = cancel
        source.attach(out.send, end)
        return out

    def _guarded(self, events: Iterator[dict[str, Any]], timeout_event: bool) -> Iterator[dict[str, Any]]:
        try:
            yield from events
        except ModelError as error:
            yield to_event(error, timeout_event)
        except Exception:
            self.platform.machine.on_defect(f"defect in a model's stream:\n{traceback.format_exc()}")
            yield {"internalServerException": {"message": DEFECT}}


def failure(error: Exception, model_id: str) -> Exception:
    return to_aws(error, model_id) if isinstance(error, ModelError) else error


def complete(
    work: Work, model: Model, begin: Callable[[], Generation], reply: Callable[[Answer, Generation], Reply]
) -> Outcome:
    """The whole text at once. Generation ends early when the client goes away."""

    def compute() -> tuple[Answer, Generation]:
        generation = begin()
        pieces = []
        for piece in generation:
            pieces.append(piece)
            if work.cancelled:
                generation.close()
                break
        return Answer.of("".join(pieces), generation, work.latency_ms()), generation

    def then(made: tuple[Answer, Generation]) -> Outcome:
        answer, generation = made
        work.finish(answer.input_tokens, answer.output_tokens)
        return reply(answer, generation)

    return work.deferred(compute, then, model.id)


def stream(
    work: Work,
    model: Model,
    begin: Callable[[], Generation],
    events: Callable[[Generation, str | None], Iterator[dict[str, Any]]],
    reply: Callable[[Channel], Reply],
    timeout_event: bool,
) -> Outcome:
    """The reply leaves with the first piece, so a backend that fails before it still answers with an HTTP error."""

    def compute() -> tuple[Generation, str | None]:
        generation = begin()
        return generation, next(generation, None)

    def then(begun: tuple[Generation, str | None]) -> Outcome:
        generation, first = begun

        work.first_token_ms = work.latency_ms()

        def used() -> tuple[int, int]:
            return generation.usage.input_tokens, generation.usage.output_tokens

        def made() -> Iterator[dict[str, Any]]:
            try:
                yield from events(generation, first)
            finally:
                generation.close()

        return reply(work.channel(made, used, timeout_event))

    return work.deferred(compute, then, model.id)
