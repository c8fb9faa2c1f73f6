"""http(s) URLs as targets."""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from preheat.kernel.errors import AwsError
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Deferred, Outcome
from preheat.services.deliveries import Delivery

TIMEOUT_S = 15.0
MAX_ANSWER = 64 * 1_024
RETRIED = frozenset({100, 101, 408, 429})


def to_web(ctx: Context, delivery: Delivery, background: Background) -> Outcome:
    """One request from a thread; redirects are not followed. Options: `method` (POST), `headers` (name to value),
    `timeout_s` (15). Any 2xx is success; 5xx, 429 and a failed connection are tried again, the rest is final."""
    headers = {"Content-Type": "text/plain; charset=UTF-8", **delivery.options.get("headers", {})}
    if delivery.trace is not None:
        headers["X-Amzn-Trace-Id"] = delivery.trace
    method = delivery.options.get("method", "POST")
    timeout_s = delivery.options.get("timeout_s", TIMEOUT_S)

    def work() -> Iterable[Any]:
        yield request(method, delivery.target, headers, delivery.body.encode(), timeout_s)

    def start(resolve: Callable[[Any], None]) -> None:
        answers: list[Any] = []

        def end(error: BaseException | None) -> None:
            resolve(answers[0] if answers else ConnectionError(str(error)))

        background.stream(work).attach(answers.append, end)

    return Deferred(start, _judge)


def request(method: str, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> tuple[int, bytes] | str:
    """(status, the beginning of the answer), or in words why there is none."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = None
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, _plain(answer.read(MAX_ANSWER), answer.headers.get("Content-Encoding", ""))
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
    finally:
        if connection is not None:
            connection.close()


def _plain(body: bytes, coding: str) -> bytes:
    """The beginning of an answer that may be compressed; as it came when it is not what `coding` says."""
    if coding not in ("gzip", "deflate"):
        return body
    import zlib

    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_ANSWER)
    except zlib.error:
        return body


def _judge(ctx: Context, answer: tuple[int, bytes] | str) -> Outcome:
    if isinstance(answer, str):
        raise AwsError("ConnectionFailure", f"The endpoint could not be reached: {answer}", 503)
    status, body = answer
    text = body[:200].decode("utf-8", "replace")
    if 200 <= status < 300:
        return {"StatusCode": status, "Response": text}
    retried = status >= 500 or status in RETRIED
    raise AwsError(f"HTTP_{status}", f"The endpoint answered {status}: {text}", max(status, 500) if retried else 400)
