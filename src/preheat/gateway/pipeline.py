"""The stages of every request, in order. A door takes the requests that are its own; the last one takes the rest.

    connection   bytes -> Exchange                                gateway/connection.py
    doors        the platform's own pages, function URLs, HTTP APIs, then the AWS APIs
    CORS         what a browser must know of an S3 bucket         gateway/bucket_cors.py
    understand   HttpRequest -> Call                              wire
    identify     signature -> Principal                           identity
    faults       calls that are to fail on purpose                gateway/faults.py
    do it        Call -> Reply or AwsError, in one transaction    services/machine.py
    answer       HttpResponse -> bytes                            wire, gateway/connection.py
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

from preheat.gateway.bucket_cors import BucketCors
from preheat.gateway.connection import Exchange
from preheat.gateway.faults import Faults
from preheat.kernel.entropy import Entropy
from preheat.kernel.errors import AwsError
from preheat.kernel.http import Call, HttpRequest
from preheat.kernel.scope import Scope
from preheat.services.contract import Principal, Reply
from preheat.services.machine import Machine
from preheat.wire import Wire

Result = Reply | AwsError
Identify = Callable[[HttpRequest, Call], Principal]
Later = Callable[[float, Callable[[], None]], object]
KNOWN_PATHS = 4_096
SIGNED = "AWS4-HMAC-SHA256"


@lru_cache(4_096)
def _scope(account: str, region: str) -> Scope:
    return Scope(account, region)


class Door(Protocol):
    """A front door: `handle` answers the exchange, now or later. Of a POST that is signed as AWS does it, `matches`
    looks at path and host only; its answer is remembered."""

    def matches(self, request: HttpRequest) -> bool: ...

    def handle(self, exchange: Exchange) -> None: ...


class Pipeline:
    def __init__(self, doors: Sequence[Door]) -> None:
        self._doors = tuple(doors)
        self._last: set[tuple[str, str]] = set()
        """(path, host) of signed POSTs that no door before the last one takes."""

    def close(self) -> None:
        """Nobody answers any more: a connection that was accepted in the last moment hears nothing and is dropped."""
        self._doors = ()
        self._last.clear()

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        headers = request.headers
        place = (request.path, headers.get("host", ""))
        signed = request.method == "POST" and headers.get("authorization", "").startswith(SIGNED)
        if signed and place in self._last:
            self._doors[-1].handle(exchange)
            return
        for door in self._doors:
            if door.matches(request):
                if signed and door is self._doors[-1]:
                    self._remember(place)
                door.handle(exchange)
                return

    def _remember(self, place: tuple[str, str]) -> None:
        if len(self._last) >= KNOWN_PATHS:
            self._last.clear()
        self._last.add(place)


class ApiDoor:
    """The AWS APIs: everything that no other door claims. `later(seconds, call)` is the loop's."""

    def __init__(
        self, wire: Wire, machine: Machine, identify: Identify, entropy: Entropy, faults: Faults, later: Later
    ) -> None:
        self._wire = wire
        self._machine = machine
        self._identify = identify
        self._entropy = entropy
        self._faults = faults
        self._later = later
        self._cors = BucketCors(machine, wire, entropy)

    def matches(self, request: HttpRequest) -> bool:
        return True

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        browser = "origin" in request.headers or request.method == "OPTIONS"
        if not (browser and self._cors.claims(exchange, self._serve)):
            self._serve(exchange)

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        wire = self._wire
        request_id = self._entropy.uuid()
        call: Call | None = None
        try:
            call = wire.understand(request)
            principal = self._identify(request, call)
        except AwsError as error:
            exchange.respond(wire.error(call, request, error, request_id))
            return
        fault = self._faults.strike(call, principal)
        if fault is None:
            self._submit(exchange, call, principal, request_id)
        elif fault.error == "drop":
            exchange.drop()
        elif fault.error == "delay":
            known = call
            self._later(fault.ms / 1_000, lambda: self._submit(exchange, known, principal, request_id))
        else:
            exchange.respond(wire.error(call, request, fault.refusal(), request_id))

    def _submit(self, exchange: Exchange, call: Call, principal: Principal, request_id: str) -> None:
        if exchange.gone:
            return
        wire, request = self._wire, exchange.request

        def answer(reply: Result) -> None:
            if isinstance(reply, Reply):
                response = wire.reply(call, reply.output, request_id, reply.status, reply.headers)
            else:
                response = wire.error(call, request, reply, request_id)
            exchange.respond(response)

        task = self._machine.submit(
            call.service,
            call.operation,
            call.params,
            answer,
            scope=_scope(principal.account, call.region),
            principal=principal,
            request=request,
            request_id=request_id,
        )
        exchange.on_gone = lambda: self._machine.cancel(task)
