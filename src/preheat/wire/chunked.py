"""aws-chunked request bodies: `<hex length>[;chunk-signature=...]\r\n<data>\r\n ... 0\r\n<trailers>\r\n`.

Chunk signatures are not verified here; the request's own signature covers the first of them.
"""

import re

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest

HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")


def is_chunked(headers: dict[str, str]) -> bool:
    return headers.get("x-amz-content-sha256", "").startswith("STREAMING-") or "aws-chunked" in headers.get(
        "content-encoding", ""
    )


def _incomplete() -> AwsError:
    return AwsError("IncompleteBody", "The request body terminated unexpectedly")


def decode(request: HttpRequest) -> tuple[bytes, dict[str, str]]:
    """The body without its framing, and the trailing headers in lower case. Raises AwsError IncompleteBody."""
    raw = request.body
    chunks: list[bytes] = []
    position = 0
    while True:
        end = raw.find(b"\r\n", position)
        if end < 0:
            raise _incomplete()
        digits = raw[position:end].split(b";", 1)[0].strip()
        if HEX.fullmatch(digits) is None:
            raise _incomplete()
        length = int(digits, 16)
        position = end + 2
        if length == 0:
            break
        if raw[position + length : position + length + 2] != b"\r\n":
            raise _incomplete()
        chunks.append(raw[position : position + length])
        position += length + 2
    body = b"".join(chunks)
    announced = request.headers.get("x-amz-decoded-content-length")
    if announced is not None and announced.strip() != str(len(body)):
        raise _incomplete()
    return body, _trailers(raw[position:])


def _trailers(raw: bytes) -> dict[str, str]:
    trailers = {}
    for line in raw.split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            raise _incomplete()
        trailers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
    return trailers
