"""Forms that a browser posts to a bucket: multipart/form-data, the policy that was signed, how success is told.

Everything here is arithmetic on values; `gateway/post_forms.py` makes a PutObject of it. AWS's texts where they are
known; those of a policy that is no policy are after its pattern.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from preheat.kernel.errors import AwsError
from preheat.services.s3.domain import MAX_PUT_BYTES, not_implemented

MOST_BEFORE_FILE = 20 * 1_024
"""Bytes of all fields before the file."""
HEADERS = frozenset(("cache-control", "content-disposition", "content-encoding", "content-type", "expires"))
SIGNING = frozenset(
    ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature")
)  # fmt: skip
UNCONDITIONAL = frozenset(("awsaccesskeyid", "bucket", "file", "policy", "signature", "x-amz-signature"))
IGNORED = "x-ignore-"
FILENAME = "${filename}"
_PARAMETER = re.compile(r'(?:^|[;\s])(name|filename|boundary)=(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Form:
    """`fields` are those before the file, names in lower case, ${filename} put in; the file lies from `start` to `end`
    of the body."""

    fields: dict[str, str]
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def key(self) -> str:
        return self.fields["key"]


# -- multipart/form-data ----------------------------------------------------------------------------------------------


def is_form(content_type: str) -> bool:
    return content_type[:19].lower() == "multipart/form-data"


def read(content_type: str, body: bytes) -> Form:
    """Raises AwsError: MalformedPOSTRequest, IncorrectNumberOfFilesInPostRequest, MaxPostPreDataLengthExceeded, and
    InvalidArgument when there is no key."""
    boundary = _parameters(content_type).get("boundary", "")
    if not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise _malformed()
    found: dict[str, list[str]] = {}
    for name, filename, start, end in _parts(body, b"--" + boundary.encode()):
        if name == "file":
            fields = {key: ",".join(values).replace(FILENAME, filename) for key, values in found.items()}
            if not fields.get("key"):
                raise AwsError(
                    "InvalidArgument",
                    "Bucket POST must contain a field named 'key'.  If it is specified, please check the order of the "
                    "fields.",
                    fields={"ArgumentName": "key", "ArgumentValue": ""},
                )
            return Form(fields, start, end)
        if end > MOST_BEFORE_FILE:
            raise AwsError(
                "MaxPostPreDataLengthExceeded",
                "Your POST request fields preceding the upload file were too large.",
                fields={"MaxPostPreDataLengthBytes": str(MOST_BEFORE_FILE)},
            )
        found.setdefault(name, []).append(_text(body[start:end]))
    raise AwsError("IncorrectNumberOfFilesInPostRequest", "POST requires exactly one file upload per request.")


def _parts(body: bytes, delimiter: bytes) -> Iterator[tuple[str, str, int, int]]:
    """(name in lower case, file name without folders, start, end) of each part."""
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter, 0, MOST_BEFORE_FILE) + 2
    if not body.startswith(delimiter, at):
        raise _malformed()
    at += len(delimiter)
    while not body.startswith(b"--", at):
        head = body.find(b"\r\n\r\n", at, at + MOST_BEFORE_FILE)
        end = body.find(b"\r\n" + delimiter, head + 2) if head >= 0 else -1
        if end < 0 or not body.startswith(b"\r\n", at):
            raise _malformed()
        told = [line for line in _text(body[at:head]).split("\r\n") if line.lower().startswith("content-disposition:")]
        named = _parameters(told[0]) if told else {}
        if not named.get("name"):
            raise _malformed()
        filename = re.split(r"[/\\]", named.get("filename", ""))[-1]
        yield named["name"].lower(), filename, min(head + 4, end), end
        at = end + 2 + len(delimiter)


def _parameters(line: str) -> dict[str, str]:
    found = {}
    for name, quoted, plain in _PARAMETER.findall(line):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted).replace("%22", '"') if quoted else plain)
    return found


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def _malformed() -> AwsError:
    return AwsError("MalformedPOSTRequest", "The body of your POST request is not well-formed multipart/form-data.")


# -- the policy -------------------------------------------------------------------------------------------------------


def check(form: Form, bucket: str, now: float) -> None:
    """What the form's policy says of it; nothing without one. Raises AwsError: InvalidPolicyDocument, AccessDenied,
    EntityTooLarge, EntityTooSmall. `now` in epoch seconds."""
    _check_size(form.size, 0, MAX_PUT_BYTES)
    if "policy" not in form.fields:
        return
    expires, conditions = _policy(form.fields["policy"])
    if now >= expires:
        raise _against("Policy expired.")
    given = {**form.fields, "bucket": bucket}
    ranges: list[tuple[int, int]] = []
    named: set[str] = set()
    for operator, name, value in (_condition(one) for one in conditions):
        if operator == "content-length-range":
            ranges.append((int(name), int(value)))
            continue
        lowered = name.lower()
        named.add(lowered)
        if not _holds(operator, lowered, value, given.get(lowered)):
            raise _against(f"Policy Condition failed: {json.dumps([operator, '$' + name, value])}")
    if "bucket" not in named:
        raise _against("Extra input fields: bucket")
    for name in form.fields:
        if name not in named and name not in UNCONDITIONAL and not name.startswith(IGNORED):
            raise _against(f"Extra input fields: {name}")
    for least, most in ranges:
        _check_size(form.size, least, most)


def _policy(text: str) -> tuple[float, list[Any]]:
    """(when it ends, in epoch seconds; its conditions)."""
    try:
        policy = json.loads(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, RecursionError):
        raise _no_policy("Invalid JSON.") from None
    if not isinstance(policy, dict):
        raise _no_policy("Invalid JSON.")
    for name in ("expiration", "conditions"):
        if name not in policy:
            raise _no_policy(f"Policy missing {name}.")
    if not isinstance(policy["conditions"], list):
        raise _no_policy("Invalid 'conditions' value: must be a List.")
    try:
        moment = datetime.fromisoformat(policy["expiration"])
    except (TypeError, ValueError):
        raise _no_policy(f"Invalid 'expiration' value: '{policy['expiration']}'") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), policy["conditions"]


def _condition(one: Any) -> tuple[str, str, str]:
    """(operator, name without the $, value); of a range (operator, least, most), both whole numbers."""
    if isinstance(one, dict):
        if len(one) != 1:
            raise _no_policy("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
        ((name, value),) = one.items()
        if not isinstance(value, str):
            raise _no_policy("Invalid Simple-Condition: value must be a string.")
        return "eq", name, value
    if not isinstance(one, list) or len(one) != 3 or not isinstance(one[0], str):
        raise _no_policy(f"Invalid condition: {json.dumps(one)[:200]}")
    operator = one[0].lower()
    if operator == "content-length-range":
        least, most = str(one[1]), str(one[2])
        if not (least.isdecimal() and most.isdecimal()):
            raise _no_policy("Invalid content-length-range: it takes two whole numbers.")
        return operator, least, most
    if operator not in ("eq", "starts-with"):
        raise _no_policy(f"Invalid condition operator: {one[0][:200]}")
    if not isinstance(one[1], str) or not one[1].startswith("$") or not isinstance(one[2], str):
        raise _no_policy(f"Invalid condition: {json.dumps(one)[:200]}")
    return operator, one[1][1:], one[2]


def _holds(operator: str, name: str, wanted: str, given: str | None) -> bool:
    """A Content-Type with commas is a list, each of which must begin as it is said."""
    if given is None:
        return False
    if operator == "eq":
        return given == wanted
    values = [part.strip() for part in given.split(",")] if name == "content-type" else [given]
    return all(value.startswith(wanted) for value in values)


def _check_size(size: int, least: int, most: int) -> None:
    if size > most:
        raise AwsError(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            fields={"ProposedSize": str(size), "MaxSizeAllowed": str(most)},
        )
    if size < least:
        raise AwsError(
            "EntityTooSmall",
            "Your proposed upload is smaller than the minimum allowed size",
            fields={"ProposedSize": str(size), "MinSizeAllowed": str(least)},
        )


def _against(what: str) -> AwsError:
    return AwsError("AccessDenied", f"Invalid according to Policy: {what}", 403)


def _no_policy(what: str) -> AwsError:
    return AwsError("InvalidPolicyDocument", f"Invalid Policy: {what}")


# -- what becomes of it -----------------------------------------------------------------------------------------------


def put_headers(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers of the PUT that says the same. Raises AwsError for what no header can carry."""
    headers = {}
    for name, value in fields.items():
        if name in HEADERS or (name.startswith("x-amz-") and name not in SIGNING):
            headers[name] = value
        elif name == "acl":
            headers["x-amz-acl"] = value
    for name, value in headers.items():
        if _CONTROL.search(value) or not _TOKEN.fullmatch(name):
            raise not_implemented("A header you provided implies functionality that is not implemented", name)
    return headers


def told(fields: Mapping[str, str], bucket: str, etag: str, location: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a success: the redirect that the form asks for, else 200, 201 with a document, 204."""
    key = fields["key"]
    onward = fields.get("success_action_redirect") or fields.get("redirect") or ""
    if urlsplit(onward).scheme in ("http", "https") and not _CONTROL.search(onward) and onward.isascii():
        joint = "&" if "?" in onward else "?"
        return 303, {"Location": f"{onward}{joint}{urlencode({'bucket': bucket, 'key': key, 'etag': etag})}"}, b""
    wanted = fields.get("success_action_status")
    if wanted == "201":
        members = {"Location": location, "Bucket": bucket, "Key": key, "ETag": etag}
        inside = "".join(f"<{name}>{_escaped(value)}</{name}>" for name, value in members.items())
        document = f'<?xml version="1.0" encoding="UTF-8"?>\n<PostResponse>{inside}</PostResponse>'
        return 201, {"Location": location, "Content-Type": "application/xml"}, document.encode()
    return 200 if wanted == "200" else 204, {"Location": location}, b""


def _escaped(text: str) -> str:
    for plain, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(plain, entity)
    return "".join(one if one >= " " else f"&#{ord(one)};" for one in text)


def address(origin: str, key: str) -> str:
    return f"{origin}/{quote(key, safe='')}"
