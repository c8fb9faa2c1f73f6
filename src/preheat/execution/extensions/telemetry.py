"""The Telemetry API's side of one environment, without sockets: who subscribed to what, and what waits to be sent.

A subscriber's events gather in a batch until it has `maxItems`, `maxBytes` or is `timeoutMs` old; one batch is on its
way at a time, in order. What the subscriber does not take is dropped, and its next events begin by saying so
(`platform.logsDropped`). Events from before a subscription, back to the start of initialisation, are delivered too.
Limits and shapes after AWS's Telemetry API reference; the Logs API of 2020-08-15 goes through the same machinery.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from preheat.execution.extensions import records

SCHEMAS = {"telemetry": ("2022-07-01", "2022-12-13", "2025-01-29"), "logs": ("2020-08-15", "2021-03-18")}
TYPES = ("platform", "function", "extension")
HOSTS = ("sandbox.localdomain", "sandbox")
ITEMS, BYTES, TIMEOUT_MS = (1_000, 10_000), (262_144, 1_048_576), (25, 30_000)
DEFAULT_ITEMS = {"telemetry": 1_000, "logs": 10_000}
DEFAULT_TIMEOUT_MS = 1_000
MAX_EARLY_EVENTS = 1_000
MAX_WAITING_BATCHES = 4
SLOW = "Some logs were dropped because the downstream consumer is slower than the logs production rate"


Event = tuple[str, str, Any, float]
"""Category, type, record, epoch seconds."""


class Invalid(Exception):
    """A subscription that the schema does not allow."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Always on this machine. `tcp`: lines of JSON, else HTTP requests of `method` to `path`."""

    port: int
    tcp: bool = False
    path: str = "/"
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Subscription:
    api: str
    schema: str
    types: tuple[str, ...]
    destination: Destination
    max_items: int
    max_bytes: int
    timeout_s: float


class Carrier(Protocol):
    """What brings batches to one destination, in order."""

    def send(self, events: list[bytes], done: Callable[[bool], None]) -> None:
        """`done` is called once, later: whether the subscriber has taken them."""

    def close(self) -> None: ...


class Rim(Protocol):
    """What the outside provides."""

    def later(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call `action` then; returns what calls it off."""

    def carrier(self, destination: Destination) -> Carrier: ...


def read_subscription(api: str, body: bytes) -> Subscription:
    """`api` is "telemetry" or "logs". Raises Invalid."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise Invalid(f"the request body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise Invalid("the request body must be a JSON object")
    schema = document.get("schemaVersion", SCHEMAS["logs"][0] if api == "logs" else None)
    if schema not in SCHEMAS[api]:
        raise Invalid(f"schemaVersion must be one of {', '.join(SCHEMAS[api])}")
    types = document.get("types")
    if not isinstance(types, list) or not types or any(kind not in TYPES for kind in types):
        raise Invalid(f"types must be a non-empty list of {', '.join(TYPES)}")
    buffering = document.get("buffering", {})
    if not isinstance(buffering, dict):
        raise Invalid("buffering must be an object")
    return Subscription(
        api,
        schema,
        tuple(dict.fromkeys(types)),
        _destination(document.get("destination")),
        _number(buffering, "maxItems", ITEMS, DEFAULT_ITEMS[api]),
        _number(buffering, "maxBytes", BYTES, BYTES[0]),
        _number(buffering, "timeoutMs", TIMEOUT_MS, DEFAULT_TIMEOUT_MS) / 1000.0,
    )


def _number(buffering: dict[str, Any], name: str, bounds: tuple[int, int], default: int) -> int:
    value = buffering.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not bounds[0] <= value <= bounds[1]:
        raise Invalid(f"buffering.{name} must be an integer from {bounds[0]} to {bounds[1]}")
    return value


def _destination(value: Any) -> Destination:
    if not isinstance(value, dict):
        raise Invalid("destination must be an object")
    if value.get("protocol") == "TCP":
        port = value.get("port")
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65_535:
            raise Invalid("destination.port must be an integer from 1 to 65535")
        return Destination(port, tcp=True)
    if value.get("protocol") != "HTTP":
        raise Invalid("destination.protocol must be HTTP or TCP")
    uri = value.get("URI")
    if not isinstance(uri, str):
        raise Invalid("destination.URI must be a string")
    try:
        parts = urlsplit(uri)
        port = parts.port or 80
    except ValueError as error:
        raise Invalid(f"destination.URI is not valid: {error}") from error
    if parts.scheme != "http" or parts.hostname not in HOSTS:
        raise Invalid(f"destination.URI must be http://{HOSTS[0]}:<port>")
    method = value.get("method", "POST")
    if method not in ("POST", "PUT"):
        raise Invalid("destination.method must be POST or PUT")
    if value.get("encoding", "JSON") != "JSON":
        raise Invalid("destination.encoding must be JSON")
    return Destination(port, path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""), method=method)


class Stream:
    """One subscriber's events on their way."""

    def __init__(self, subscription: Subscription, rim: Rim) -> None:
        self.subscription = subscription
        self.lost_events = 0
        self.lost_bytes = 0
        self._rim = rim
        self._carrier = rim.carrier(subscription.destination)
        self._batch: list[bytes] = []
        self._size = 0
        self._waiting: deque[list[bytes]] = deque()
        self._sending = False
        self._call_off: Callable[[], None] | None = None
        self._closed = False

    def add(self, event: bytes) -> None:
        subscription = self.subscription
        if self._batch and self._size + len(event) > subscription.max_bytes:
            self.flush()
        self._batch.append(event)
        self._size += len(event)
        if len(self._batch) >= subscription.max_items or self._size >= subscription.max_bytes:
            self.flush()
        elif self._call_off is None:
            self._call_off = self._rim.later(subscription.timeout_s, self._timed)

    def _timed(self) -> None:
        self._call_off = None
        self.flush()

    def flush(self) -> None:
        """Send what there is."""
        if self._call_off is not None:
            self._call_off()
            self._call_off = None
        batch, self._batch, self._size = self._batch, [], 0
        if not batch or self._closed:
            return
        if len(self._waiting) >= MAX_WAITING_BATCHES:
            self._lose(batch)
            return
        self._waiting.append(batch)
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._sending and not self._closed:
            batch = self._waiting.popleft()
            self._sending = True
            self._carrier.send(batch, lambda taken: self._sent(batch, taken))

    def _sent(self, batch: list[bytes], taken: bool) -> None:
        self._sending = False
        if self._closed:
            return
        if not taken:
            self._lose(batch)
        self._next()

    def _lose(self, batch: list[bytes]) -> None:
        self.lost_events += len(batch)
        self.lost_bytes += sum(map(len, batch))

    def close(self) -> None:
        self._closed = True
        if self._call_off is not None:
            self._call_off()
            self._call_off = None
        self._carrier.close()


class Telemetry:
    """All subscriptions of one environment between two resets. `now` is epoch seconds; `log` gets the line that Lambda
    writes about a subscription."""

    def __init__(self, now: Callable[[], float], log: Callable[[str], None]) -> None:
        self._now = now
        self._log = log
        self._early: list[Event] | None = []
        self._streams: dict[str, Stream] = {}
        self.open = True

    @property
    def wanted(self) -> bool:
        """Whether an event would be of use to anybody."""
        return self._early is not None or bool(self._streams)

    def emit(self, kind: str, record: Any, category: str = "platform") -> None:
        event = (category, kind, record, self._now())
        if self._early is not None and len(self._early) < MAX_EARLY_EVENTS:
            self._early.append(event)
        for stream in self._streams.values():
            _add(stream, event)

    def subscribe(self, name: str, subscription: Subscription, rim: Rim) -> None:
        """Replaces the same subscriber's earlier subscription. Raises Invalid when that used the other API."""
        before = self._streams.get(name)
        if before is not None:
            if before.subscription.api != subscription.api:
                raise Invalid(f"{name} is already subscribed through the {before.subscription.api} API")
            if before.subscription == subscription:
                return
            before.close()
        stream = self._streams[name] = Stream(subscription, rim)
        for event in self._early or ():
            _add(stream, event)
        word = "TELEMETRY" if subscription.api == "telemetry" else "LOGS"
        shown = ", ".join(kind.capitalize() for kind in subscription.types)
        self._log(f"{word}\tName: {name}\tState: Subscribed\tTypes: [{shown}]")
        self.emit(
            "platform.telemetrySubscription", {"name": name, "state": "Subscribed", "types": list(subscription.types)}
        )

    def settle(self) -> None:
        """Initialisation is over: no more subscriptions."""
        self.open = False
        self._early = None

    def flush(self) -> None:
        for stream in self._streams.values():
            stream.flush()

    def close(self) -> None:
        streams, self._streams, self._early = self._streams, {}, None
        for stream in streams.values():
            stream.close()


def _add(stream: Stream, event: Event) -> None:
    category, kind, record, at = event
    if category not in stream.subscription.types:
        return
    if stream.lost_events:
        lost = {"droppedBytes": stream.lost_bytes, "droppedRecords": stream.lost_events, "reason": SLOW}
        stream.lost_events = stream.lost_bytes = 0
        _put(stream, "platform.logsDropped", lost, at)
    _put(stream, kind, record, at)


def _put(stream: Stream, kind: str, record: Any, at: float) -> None:
    if stream.subscription.api == "logs":
        found = records.for_logs(kind, record)
        if found is None:
            return
        kind, record = found
    elif kind == "platform.end":
        return
    event = {"time": records.moment(at), "type": kind, "record": record}
    stream.add(json.dumps(event, separators=(",", ":")).encode())
