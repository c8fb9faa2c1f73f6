"""A browser's form, posted."""

import urllib.error
import urllib.request
from typing import Any

BOUNDARY = "----a-boundary-4711"


def multipart(fields: dict[str, str], file: bytes | None, name: str = "file.bin", after: bytes = b"") -> bytes:
    """The body; `after` stands between the file and the end."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    if file is not None:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts += [head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", file, b"\r\n"]
    return b"".join([*parts, after, f"--{BOUNDARY}--\r\n".encode()])


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *told: Any) -> None:
        return None


def posted(
    url: str, fields: dict[str, str], file: bytes | None, name: str = "file.bin", headers: dict[str, str] | None = None,
    after: bytes = b"",
) -> tuple[int, dict[str, str], str]:  # fmt: skip
    """(status, headers with names in lower case, body) of the answer; redirects are not followed."""
    told = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", **(headers or {})}
    request = urllib.request.Request(url, multipart(fields, file, name, after), told, method="POST")
    try:
        answer = urllib.request.build_opener(_Stay).open(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read().decode()
