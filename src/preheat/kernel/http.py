"""HTTP as values. No sockets here: `gateway/connection` makes requests of bytes and bytes of responses."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from preheat.kernel.stream import Channel, FileSlice


class HttpRequest:
    """One request as it was received.

    `target` is the raw request target (signatures need it); `path` and `query` are its two halves, still encoded.
    Header names are lower case; repeated headers are joined by a comma. `body` is the raw body, whole.
    """

    __slots__ = ("body", "headers", "method", "path", "peer", "query", "target")

    def __init__(
        self, method: str, target: str, headers: dict[str, str], body: bytes = b"", peer: str = "127.0.0.1"
    ) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = body
        self.peer = peer

    def arguments(self) -> list[tuple[str, str]]:
        """The query string's decoded pairs, in order, blanks kept."""
        return parse_qsl(self.query, keep_blank_values=True)

    def decoded_path(self) -> str:
        return unquote(self.path)


@dataclass(slots=True)
class HttpResponse:
    """`body` is bytes, a slice of a file, or a channel of byte chunks (sent chunked, each as it comes)."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | FileSlice | Channel = b""


@dataclass(slots=True)
class Call:
    """One AWS operation, understood: what `wire` makes of a request and the machine runs.

    `context` is wire's own note on how to write the answer (protocol, compiled operation); nobody else reads it.
    """

    service: str
    operation: str
    params: dict[str, Any]
    region: str = "us-east-1"
    request: HttpRequest | None = None
    context: Any = None
