"""Event streams of one operation: each one-member dict becomes a message, as the protocol has it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Channel
from preheat.wire import eventstream
from preheat.wire.model import Model

Body = Callable[[str, dict[str, Any]], bytes]


class EventBodies(NamedTuple):
    """How a protocol writes one structure: `write(shape name, value)`, and the content type of that."""

    content_type: str
    write: Body


class EventWriter:
    """`member` is the output member that carries the stream, `shape` its union."""

    def __init__(self, model: Model, member: str, shape: str, bodies: EventBodies) -> None:
        self.member = member
        self._model = model
        self._bodies = bodies
        self._events = {name: ref.shape for name, ref in model.shapes[shape].members.items()}
        self._exceptions = {shape_name: name for name, shape_name in self._events.items()}

    def open(self, value: Channel | list[Any], initial: dict[str, Any] | None, output: str) -> Channel | bytes:
        """`initial`: the output's other members, for protocols that send them as the first message."""
        first = None
        if initial is not None:
            headers = {
                ":event-type": "initial-response",
                ":content-type": self._bodies.content_type,
                ":message-type": "event",
            }
            first = eventstream.encode(headers, self._bodies.write(output, initial))
        if isinstance(value, Channel):
            return eventstream.stream(value, self._event, self._failure, first)
        return (first or b"") + b"".join(map(self._event, value))

    def _event(self, item: dict[str, Any]) -> bytes:
        [(name, value)] = item.items()
        shape_name = self._events[name]
        shape = self._model.shapes[shape_name]
        if shape.exception:
            return self._exception(name, shape_name, value)
        headers: dict[str, Any] = {":event-type": name, ":message-type": "event"}
        payload, content_type = None, self._bodies.content_type
        for own, ref in shape.members.items():
            inner = value.get(own)
            if ref.eventheader and inner is not None:
                headers[own] = inner
            elif ref.eventpayload:
                payload, content_type = self._payload(ref.shape, inner)
        if payload is None:
            payload = self._bodies.write(shape_name, value)
        headers[":content-type"] = content_type
        return eventstream.encode(headers, payload)

    def _payload(self, shape_name: str, value: Any) -> tuple[bytes, str]:
        kind = self._model.shapes[shape_name].type
        if kind == "blob":
            return b"" if value is None else bytes(value), "application/octet-stream"
        if kind == "string":
            return (value or "").encode(), "text/plain"
        return self._bodies.write(shape_name, value or {}), self._bodies.content_type

    def _exception(self, name: str, shape_name: str, value: dict[str, Any]) -> bytes:
        headers = {
            ":exception-type": name,
            ":content-type": self._bodies.content_type,
            ":message-type": "exception",
        }
        return eventstream.encode(headers, self._bodies.write(shape_name, value))

    def _failure(self, error: AwsError) -> bytes:
        shape_name = error.code if error.code in self._exceptions else self._events.get(error.code)
        if shape_name is None:
            headers = {
                ":message-type": "error",
                ":error-code": error.code,
                ":error-message": error.message,
            }
            return eventstream.encode(headers)
        members = self._model.shapes[shape_name].members
        key = next((name for name in members if name.lower() == "message"), "message")
        return self._exception(self._exceptions[shape_name], shape_name, {**error.fields, key: error.message})
