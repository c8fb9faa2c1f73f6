"""The load generator where wrk is not installed: the same environment variables as load.lua, the same RESULT line.

One process, raw sockets, a selector. It reaches a few thousand requests a second, so with it a fast server is measured
by its generator; figures made with it say so.

    LOAD_KIND=send LOAD_QUEUE=... python bench/generator.py http://127.0.0.1:4566 CONNECTIONS SECONDS
"""

import json
import os
import re
import selectors
import socket
import sys
import time
from urllib.parse import quote, urlsplit

HANDLES = re.compile(rb'"ReceiptHandle"\s*:\s*"([^"]+)"|<ReceiptHandle>([^<]+)</ReceiptHandle>')
EMPTY_TO_STOP = 64
AUTH = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/%s/aws4_request, SignedHeaders=host;x-amz-date, Signature="
)


class Requests:
    """The requests of one kind as bytes; `next()` gives the one to send now."""

    def __init__(self, host: str, variables: dict[str, str]) -> None:
        self._host = host
        self._variables = variables
        self._query = variables.get("LOAD_PROTOCOL") == "query"
        self._auth = AUTH % variables.get("LOAD_SERVICE", "sqs") + "0" * 64
        self.queue = variables.get("LOAD_QUEUE", "")
        self.kind = variables["LOAD_KIND"]
        self.waiting: list[list[str]] = []
        self.patience = int(variables.get("LOAD_EMPTY", EMPTY_TO_STOP))
        self._body = "x" * int(variables.get("LOAD_SIZE", "100"))
        self._groups = int(variables.get("LOAD_GROUPS", "1"))
        self._number = 0
        self._run = f"{time.monotonic_ns()}-"
        receive: dict = {"MaxNumberOfMessages": 10}
        if "LOAD_WAIT" in variables:
            receive["WaitTimeSeconds"] = int(variables["LOAD_WAIT"])
        plain = [{"Id": str(number), "MessageBody": self._body} for number in range(1, 11)]
        self._fixed = {
            "send": lambda: self._sqs("SendMessage", {"MessageBody": self._body}),
            "batch": lambda: self._entries("SendMessageBatch", plain),
            "drain": lambda: self._sqs("ReceiveMessage", receive),
            "fifo": lambda: b"",
            "fifobatch": lambda: b"",
            "raw": self._raw,
        }[self.kind]()

    def next(self) -> bytes:
        if self.kind == "fifo":
            return self._sqs("SendMessage", self._ordered())
        if self.kind == "fifobatch":
            return self._entries("SendMessageBatch", [{"Id": str(row), **self._ordered()} for row in range(1, 11)])
        if not self.waiting:
            return self._fixed
        handles = self.waiting.pop()
        rows = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles, 1)]
        return self._entries("DeleteMessageBatch", rows)

    def _ordered(self) -> dict[str, str]:
        """A message of a FIFO queue: in the next group, with a deduplication id of its own."""
        self._number += 1
        return {
            "MessageBody": self._body, "MessageGroupId": f"g{self._number % self._groups}",
            "MessageDeduplicationId": f"{self._run}{self._number}",
        }  # fmt: skip

    def _message(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        headers = {
            "Host": self._host, "Authorization": self._auth, "X-Amz-Date": "20260101T000000Z", **headers,
            "Content-Length": str(len(body)),
        }  # fmt: skip
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    def _raw(self) -> bytes:
        given = self._variables
        headers = {
            "Content-Type": given["LOAD_TYPE"], "X-Amz-Target": given["LOAD_TARGET"],
            "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        }  # fmt: skip
        return self._message(given["LOAD_METHOD"], given["LOAD_PATH"], headers, given["LOAD_BODY"].encode())

    def _sqs(self, action: str, members: dict) -> bytes:
        if not self._query:
            headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
            return self._message("POST", "/", headers, json.dumps({"QueueUrl": self.queue, **members}).encode())
        form = {"Action": action, "Version": "2012-11-05", **members}
        body = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in form.items()).encode()
        return self._message(
            "POST", urlsplit(self.queue).path, {"Content-Type": "application/x-www-form-urlencoded"}, body
        )

    def _entries(self, action: str, rows: list[dict[str, str]]) -> bytes:
        if not self._query:
            return self._sqs(action, {"Entries": rows})
        members = {
            f"{action}RequestEntry.{number}.{name}": value
            for number, row in enumerate(rows, 1)
            for name, value in row.items()
        }
        return self._sqs(action, members)


class Reader:
    """One response out of the bytes of a connection: (status, body) when it is whole."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        self._data += data
        head, found, body = self._data.partition(b"\r\n\r\n")
        if not found:
            return None
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if not body.endswith(b"0\r\n\r\n"):
                return None
        else:
            length = re.search(rb"content-length: *(\d+)", lower)
            if len(body) < (int(length[1]) if length else 0):
                return None
        self._data = b""
        return int(head[9:12]), body


class Tally:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.bad = self.messages = self.empty = 0
        self.first_at = self.last_at = 0.0

    def answer(self, requests: Requests, status: int, body: bytes, took: float) -> None:
        now = time.perf_counter()
        self.first_at = self.first_at or now
        self.times.append(took)
        self.bad += status >= 400
        if requests.kind != "drain":
            self.last_at = now
            return
        handles = [(one or two).decode() for one, two in HANDLES.findall(body)]
        if handles:
            self.messages += len(handles)
            requests.waiting.append(handles)
        if handles or b"Successful" in body or b"DeleteMessageBatchR" in body:
            self.last_at = now
        else:
            self.empty += 1


def load(
    endpoint: str, connections: int, seconds: float, variables: dict[str, str], count: int = sys.maxsize
) -> dict[str, float]:
    """Keep `connections` busy for `seconds`, or until `count` answers came or a drained queue is empty; the figures of
    RESULT."""
    where = urlsplit(endpoint)
    requests, tally = Requests(where.netloc, variables), Tally()
    selector = selectors.DefaultSelector()
    sockets: list[socket.socket] = []
    started = time.perf_counter()
    try:
        for _ in range(connections):
            sock = socket.create_connection((where.hostname, where.port), timeout=30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sockets.append(sock)
            selector.register(sock, selectors.EVENT_READ, _Line(sock, requests, tally))
        started = time.perf_counter()
        for key in selector.get_map().values():
            key.data.send()
        errors = 0
        while time.perf_counter() - started < seconds and tally.empty <= requests.patience and len(tally.times) < count:
            for key, _ in selector.select(0.1):
                if len(tally.times) >= count:
                    break
                if not key.data.receive():
                    selector.unregister(key.fileobj)
                    errors += 1
            if errors == connections:
                break
    finally:
        for sock in sockets:
            sock.close()
        selector.close()
    times = sorted(tally.times) or [0.0]
    return {
        "requests": len(tally.times), "seconds": time.perf_counter() - started,
        "busy_seconds": max(0.0, tally.last_at - tally.first_at), "bad": tally.bad, "errors": errors,
        "messages": tally.messages, "p50_ms": 1_000 * times[len(times) // 2],
        "p99_ms": 1_000 * times[min(len(times) - 1, len(times) * 99 // 100)],
    }  # fmt: skip


class _Line:
    """One connection: sends a request, reads its answer, sends the next."""

    def __init__(self, sock: socket.socket, requests: Requests, tally: Tally) -> None:
        self._sock = sock
        self._requests = requests
        self._tally = tally
        self._reader = Reader()
        self._sent_at = 0.0

    def send(self) -> None:
        self._sent_at = time.perf_counter()
        self._sock.sendall(self._requests.next())

    def receive(self) -> bool:
        """False when the server closed the connection."""
        try:
            data = self._sock.recv(65_536)
        except OSError:
            return False
        if not data:
            return False
        whole = self._reader.feed(data)
        if whole is not None:
            self._tally.answer(self._requests, *whole, time.perf_counter() - self._sent_at)
            self.send()
        return True


def main() -> int:
    endpoint, connections, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    print("RESULT " + json.dumps(load(endpoint, connections, seconds, dict(os.environ))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
