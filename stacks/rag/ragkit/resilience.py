"""What stands between this service and each thing it calls: a circuit breaker, a bulkhead, a deadline, a second try for
slow reads.

Retries of single calls are the AWS client's own (`standard` mode: transient errors only, exponential pauses with full
jitter, a budget for all of them). A breaker counts what is left after those. All state is this environment's own: on
Lambda every environment finds out for itself, and none waits for another.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from urllib3.exceptions import HTTPError

Result = TypeVar("Result")
State = Literal["closed", "open", "half-open"]

TRANSIENT = frozenset(
    (
        "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "SlowDown",
        "RequestThrottled", "RequestThrottledException", "ThrottledException",
        "ProvisionedThroughputExceededException", "ServiceUnavailable", "ServiceUnavailableException",
        "InternalServerException", "InternalServerError", "InternalFailure", "InternalError", "ModelNotReadyException",
        "ModelTimeoutException", "ModelErrorException", "RequestTimeout", "RequestTimeoutException",
        "LimitExceededException",
    )
)  # fmt: skip


class Refused(Exception):
    """The call was not made: the circuit is open, or too many are under way."""


class OutOfTime(Refused):
    """The call was not made: the invocation might end before it does."""


def transient(error: BaseException | None) -> bool:
    """Whether the same call may well succeed later: the service is overloaded, broken, or cannot be reached. Looks
    through what a package's own error was raised from."""
    while error is not None:
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return error.response["Error"].get("Code") in TRANSIENT or status >= 500
        if isinstance(error, ConnectionError | HTTPClientError | HTTPError | TimeoutError | OSError):
            return True
        error = error.__cause__
    return False


def passing(error: BaseException | None) -> bool:
    """Whether it is the moment's fault and not the request's: the call was refused here, or `transient` there."""
    return isinstance(error, Refused) or transient(error)


@dataclass(frozen=True)
class BreakerSettings:
    """The circuit opens when at least `share` of the last `window` calls failed and at least `least` of them were made;
    after `open_s`, and up to half as much again so that environments do not come back together, one call probes."""

    window: int = 20
    least: int = 5
    share: float = 0.5
    open_s: float = 5.0


class Breaker:
    """`clock` gives seconds, `chance` a number of [0, 1). Thread-safe."""

    def __init__(
        self,
        name: str,
        settings: BreakerSettings = BreakerSettings(),
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._failed: deque[bool] = deque(maxlen=settings.window)
        self._opened_until = 0.0
        self._state: State = "closed"

    @property
    def state(self) -> State:
        return self._state

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make a call within. Raises Refused while the circuit is open; an error counts when it is transient."""
        self.enter()
        try:
            yield
        except GeneratorExit:
            self.leave(False)
            raise
        except BaseException as error:
            self.ended_by(error)
            raise
        else:
            self.leave(False)

    def enter(self) -> None:
        """A call begins, which `leave` must end. Raises Refused while the circuit is open."""
        with self._lock:
            if self._state == "closed":
                return
            if self._state == "half-open" or self._clock() < self._opened_until:
                raise Refused(f"{self.name} failed often of late and is left alone for a moment")
            self._state = "half-open"

    def leave(self, failed: bool) -> None:
        with self._lock:
            if self._state == "half-open":
                self._failed.clear()
                self._open() if failed else self._close()
                return
            self._failed.append(failed)
            made, settings = len(self._failed), self._settings
            if failed and made >= settings.least and sum(self._failed) >= settings.share * made:
                self._open()

    def ended_by(self, error: BaseException) -> None:
        """A call that was not made in the end says nothing about the service: a probe is made again later."""
        self.leave(transient(error) or (isinstance(error, Refused) and self._state == "half-open"))

    def _open(self) -> None:
        self._state = "open"
        self._opened_until = self._clock() + self._settings.open_s * (1 + self._chance() / 2)

    def _close(self) -> None:
        self._state = "closed"


def guard_client(client: Any, breaker: Breaker) -> Any:
    """The boto3 client with every call of it behind `breaker`: what its retries could not mend counts as failed."""

    def begin(**_: Any) -> None:
        breaker.enter()

    def answered(http_response: Any, parsed: dict[str, Any], **_: Any) -> None:
        code = parsed.get("Error", {}).get("Code") if http_response.status_code >= 300 else None
        breaker.leave(http_response.status_code >= 500 or code in TRANSIENT)

    def broke(exception: BaseException, **_: Any) -> None:
        breaker.ended_by(exception)

    events, service = client.meta.events, client.meta.service_model.service_id.hyphenize()
    events.register(f"before-call.{service}", begin)
    events.register(f"after-call.{service}", answered)
    events.register(f"after-call-error.{service}", broke)
    return client


class Bulkhead:
    """At most `most` calls at once, so that one slow service does not take every thread; a call waits up to `wait_s`
    for its turn."""

    def __init__(self, name: str, most: int, wait_s: float = 1.0) -> None:
        self.name = name
        self._turns = threading.BoundedSemaphore(most)
        self._wait_s = wait_s

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Raises Refused when no turn came."""
        if not self._turns.acquire(timeout=self._wait_s):
            raise Refused(f"too many calls of {self.name} are under way")
        try:
            yield
        finally:
            self._turns.release()


class Deadline:
    """How long the caller waits: `remaining_ms` is Lambda's `context.get_remaining_time_in_millis`. Whatever is called
    must give up earlier, by `margin_s`, so that there is time left to say why."""

    def __init__(self, remaining_ms: Callable[[], int], margin_s: float = 1.0) -> None:
        self._remaining_ms = remaining_ms
        self._margin_s = margin_s

    def left(self) -> float:
        """Seconds that a call made now may take; 0 when there is no time."""
        return max(0.0, self._remaining_ms() / 1_000 - self._margin_s)

    def passed(self) -> bool:
        return self.left() <= 0


_DEADLINE: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class Invocation:
    """How long the invocation has left that this thread works on, and those threads that have its context."""

    def begin(self, context: Any) -> None:
        _DEADLINE.set(Deadline(context.get_remaining_time_in_millis))

    def left(self) -> float:
        """Seconds; endless where none has begun."""
        deadline = _DEADLINE.get()
        return float("inf") if deadline is None else deadline.left()


def timed(client: Any, invocation: Invocation, seconds: float) -> Any:
    """The boto3 client, which makes no try of a call that may take longer (`seconds`) than the invocation has left. So
    retries and calls one after the other never add up to more than the function's timeout, whatever each may take."""

    def look(**_: Any) -> None:
        if invocation.left() < seconds:
            raise OutOfTime(f"{service} is not called any more: the time that is left is for saying so")

    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-send.{service}", look)
    return client


def hedged(executor: Executor, call: Callable[[], Result], after_s: float) -> Result:
    """The result of `call`, which only reads: made a second time when the first takes longer than `after_s`, and the
    one that comes first counts. An error counts when both fail."""
    running = {executor.submit(call)}
    done, running = wait(running, timeout=after_s)
    if not done:
        running.add(executor.submit(call))
    error: BaseException | None = None
    while running or done:
        for one in done:
            error = one.exception()
            if error is None:
                for other in running:
                    other.cancel()
                return one.result()
        if not running:
            break
        done, running = wait(running, return_when=FIRST_COMPLETED)
    assert error is not None
    raise error


def guarded(breaker: Breaker, bulkhead: Bulkhead | None, call: Callable[..., Result], *given: Any) -> Result:
    """The call behind its breaker and its bulkhead. Raises Refused and what the call raises."""
    with breaker.guard():
        if bulkhead is None:
            return call(*given)
        with bulkhead.guard():
            return call(*given)
