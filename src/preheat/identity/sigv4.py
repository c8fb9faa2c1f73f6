"""Signature Version 4: what a request says about its signer, and whether the signature is theirs.

    parse(request)                 -> Signature | None
    Verifier.verify(...)           raises AwsError unless the secret made the signature
    Verifier.verify_chunks(...)    the same for every chunk of a signed aws-chunked body

A signature stands in the Authorization header or in the query string (presigned). S3 signs the path as it was sent;
everything else signs it normalised and encoded twice.
"""

import hashlib
import hmac
from calendar import timegm
from collections import OrderedDict
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import strptime
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from preheat.identity import refusals
from preheat.identity.refusals import Family
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SIGNED_STREAMS = frozenset({"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"})
SKEW_S = {"s3": 900, "query": 300, "json": 300}
MAX_EXPIRES_S = 604_800
_QUERY_NAMES = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)
_MISSING_QUERY = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
    "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)
_MALFORMED_CREDENTIAL = (
    'Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/'
    'REGION/SERVICE/aws4_request".'
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request claims. `expires_s` is None unless it is presigned; `signed_at` in epoch seconds."""

    access_key: str
    date: str
    region: str
    service: str
    amz_date: str
    signed_at: float
    signed_headers: tuple[str, ...]
    signature: str
    token: str | None
    family: Family
    expires_s: int | None = None

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


# -- reading ----------------------------------------------------------------------------------------------------------


def parse(request: HttpRequest) -> Signature | None:
    """The request's signature, None when it carries none of version 4. Raises AwsError for one that is mutilated."""
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(ALGORITHM):
        return _from_header(request, authorization)
    if "X-Amz-Algorithm=" in request.query or "X-Amz-Signature=" in request.query:
        return _from_query(request)
    return None


def _from_header(request: HttpRequest, authorization: str) -> Signature:
    fields: dict[str, str] = {}
    for part in authorization[len(ALGORITHM) :].replace(" ", ",").split(","):
        name, equals, value = part.partition("=")
        if equals:
            fields[name] = value
    credential = fields.get("Credential", "").rsplit("/", 4)
    family = refusals.family_of(request, credential[3] if len(credential) == 5 else _guess(request))
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise refusals.incomplete(
                family,
                f"Authorization header requires '{name}' parameter. Authorization={authorization}",
            )
    if len(credential) != 5 or credential[4] != "aws4_request" or not all(credential):
        raise refusals.incomplete(
            family,
            'the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    amz_date, signed_at = _header_date(request, family, authorization)
    if credential[1] != amz_date[:8]:
        raise refusals.incomplete(
            family,
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{credential[1]}' != '{amz_date[:8]}', from '{amz_date}'.",
        )
    return Signature(
        credential[0], credential[1], credential[2], credential[3], amz_date, signed_at,
        tuple(fields["SignedHeaders"].lower().split(";")), fields["Signature"],
        request.headers.get("x-amz-security-token"), family,
    )  # fmt: skip


def _guess(request: HttpRequest) -> str:
    return "s3" if "x-amz-content-sha256" in request.headers else ""


def _header_date(request: HttpRequest, family: Family, authorization: str) -> tuple[str, float]:
    text = request.headers.get("x-amz-date")
    if text is None:
        plain = request.headers.get("date")
        try:
            moment = None if plain is None else parsedate_to_datetime(plain).timestamp()
        except ValueError:
            moment = None
        if moment is not None:
            return refusals.basic_time(moment), moment
        raise refusals.incomplete(
            family,
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
            f"Authorization={authorization}",
        )
    moment = _parsed(text)
    if moment is None:
        raise refusals.incomplete(
            family,
            f"Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601",
        )
    return text, moment


def _parsed(text: str) -> float | None:
    try:
        return float(timegm(strptime(text, "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return None


def _from_query(request: HttpRequest) -> Signature:
    values = dict(request.arguments())
    if any(not values.get(name) for name in _QUERY_NAMES):
        if "X-Amz-Expires" in values or values.get("X-Amz-Credential", "").split("/")[3:4] in ([], ["s3"]):
            raise refusals.query_parameters(_MISSING_QUERY)
        values.setdefault("X-Amz-Expires", "900")
        if any(not values.get(name) for name in _QUERY_NAMES):
            raise refusals.incomplete("query", _MISSING_QUERY)
    if values["X-Amz-Algorithm"] != ALGORITHM:
        raise refusals.query_parameters('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"')
    credential = values["X-Amz-Credential"].rsplit("/", 4)
    if len(credential) != 5 or credential[4] != "aws4_request" or not all(credential):
        raise refusals.query_parameters(_MALFORMED_CREDENTIAL)
    signed_at = _parsed(values["X-Amz-Date"])
    if signed_at is None:
        raise refusals.query_parameters("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    if credential[1] != values["X-Amz-Date"][:8]:
        raise refusals.query_parameters(
            f'Invalid credential date "{credential[1]}". This date is not the same as X-Amz-Date: '
            f'"{values["X-Amz-Date"][:8]}".'
        )
    return Signature(
        credential[0], credential[1], credential[2], credential[3], values["X-Amz-Date"], signed_at,
        tuple(values["X-Amz-SignedHeaders"].lower().split(";")), values["X-Amz-Signature"],
        values.get("X-Amz-Security-Token"), refusals.family_of(request, credential[3]),
        _expires(values["X-Amz-Expires"]),
    )  # fmt: skip


def _expires(text: str) -> int:
    if not text.lstrip("-").isdigit() or not text.isascii():
        raise refusals.query_parameters("X-Amz-Expires should be a number")
    seconds = int(text)
    if seconds < 0:
        raise refusals.query_parameters("X-Amz-Expires must be non-negative")
    if seconds > MAX_EXPIRES_S:
        raise refusals.query_parameters(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{MAX_EXPIRES_S} seconds"
        )
    return seconds


# -- the canonical request --------------------------------------------------------------------------------------------


def normalised(path: str) -> str:
    """RFC 3986 dot segments removed, runs of slashes made one; all services but S3."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if path.endswith("/") and kept else "")


def canonical_path(path: str, service: str) -> str:
    """`path` as it stands in the request, still encoded."""
    if service == "s3":
        return quote_from_bytes(unquote_to_bytes(path or "/"), safe="/-_.~")
    return quote(normalised(path or "/"), safe="/-_.~")


def canonical_query(query: str) -> str:
    """All parameters but the signature itself, encoded anew and sorted."""
    pairs = []
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in ("X-Amz-Signature", ""):
            pairs.append((quote(unquote(name), safe="-_.~"), quote(unquote(value), safe="-_.~")))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def payload_hash(request: HttpRequest, signature: Signature) -> str:
    """The last line of the canonical request. Raises when a stated hash is not the body's."""
    stated = request.headers.get("x-amz-content-sha256")
    if signature.service == "s3":
        if stated is None and signature.expires_s is not None:
            return UNSIGNED
        if stated is None:
            raise AwsError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256", 400)
        if stated == UNSIGNED or stated.startswith("STREAMING-"):
            return stated
    elif stated == UNSIGNED:
        return UNSIGNED
    actual = hashlib.sha256(request.body).hexdigest() if request.body else EMPTY_SHA256
    if stated is not None and stated.lower() != actual and signature.service == "s3":
        raise AwsError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            400,
            fields={"ClientComputedContentSHA256": stated, "S3ComputedContentSHA256": actual},
        )
    return actual


def canonical_request(request: HttpRequest, signature: Signature) -> str:
    headers = request.headers
    lines = "".join(f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in signature.signed_headers)
    return "\n".join(
        (
            request.method,
            canonical_path(request.path, signature.service),
            canonical_query(request.query),
            lines,
            ";".join(signature.signed_headers),
            payload_hash(request, signature),
        )
    )


def string_to_sign(signature: Signature, canonical: str) -> str:
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return f"{ALGORITHM}\n{signature.amz_date}\n{signature.scope}\n{digest}"


# -- verifying --------------------------------------------------------------------------------------------------------


class Verifier:
    """Holds the signing keys it derived last, at most `capacity` of them."""

    def __init__(self, capacity: int = 1_024) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    def signing_key(self, secret: str, signature: Signature) -> bytes:
        index = (secret, signature.scope)
        key = self._keys.get(index)
        if key is None:
            key = ("AWS4" + secret).encode()
            for part in (signature.date, signature.region, signature.service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._keys[index] = key
            if len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
        else:
            self._keys.move_to_end(index)
        return key

    def verify(self, request: HttpRequest, signature: Signature, secret: str) -> None:
        """Raises AwsError unless `secret` made the signature and everything that must be signed is. The time is
        `check_time`'s business."""
        self._check_signed_headers(request, signature)
        canonical = canonical_request(request, signature)
        text = string_to_sign(signature, canonical)
        expected = hmac.digest(self.signing_key(secret, signature), text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature.signature.encode()):
            raise refusals.mismatch(
                signature.family,
                {
                    "AWSAccessKeyId": signature.access_key,
                    "StringToSign": text,
                    "SignatureProvided": signature.signature,
                    "CanonicalRequest": canonical,
                },
            )
        if request.headers.get("x-amz-content-sha256") in SIGNED_STREAMS:
            self.verify_chunks(request, signature, secret)

    def _check_signed_headers(self, request: HttpRequest, signature: Signature) -> None:
        signed = signature.signed_headers
        if "host" not in signed:
            raise refusals.unsigned_headers(signature.family, ["host"])
        bare = [name for name in request.headers if name.startswith("x-amz-") and name not in signed]
        if bare and not (signature.expires_s is not None and signature.family != "s3"):
            raise refusals.unsigned_headers(signature.family, bare)

    def verify_chunks(self, request: HttpRequest, signature: Signature, secret: str) -> None:
        """Every chunk of an aws-chunked body, and its signed trailer, against the chain of signatures. Raises
        SignatureDoesNotMatch, or IncompleteBody for a body that breaks off."""
        key = self.signing_key(secret, signature)
        previous, body, position = signature.signature, memoryview(request.body), 0
        while True:
            size, stated, position = _chunk_head(request.body, position)
            data = body[position : position + size]
            if len(data) != size:
                raise _broken_off()
            text = (
                f"{ALGORITHM}-PAYLOAD\n{signature.amz_date}\n{signature.scope}\n{previous}\n{EMPTY_SHA256}\n"
                f"{hashlib.sha256(data).hexdigest()}"
            )
            previous = _checked(key, text, stated, signature)
            if size == 0:
                break
            position += size + 2
        if request.headers["x-amz-content-sha256"].endswith("-TRAILER"):
            trailer, stated = _trailer(request.body[position:])
            text = (
                f"{ALGORITHM}-TRAILER\n{signature.amz_date}\n{signature.scope}\n{previous}\n"
                f"{hashlib.sha256(trailer).hexdigest()}"
            )
            _checked(key, text, stated, signature)


def check_time(signature: Signature, now: float, *, skew: bool = True) -> None:
    """Raises AwsError for a presigned URL that has expired; with `skew` also for a clock that is too far away."""
    if signature.expires_s is not None:
        ends = signature.signed_at + signature.expires_s
        if now > ends:
            if signature.family != "s3":
                raise refusals.skewed(signature.family, signature.signed_at, now, max(signature.expires_s, 60))
            raise refusals.expired_url(ends, now, signature.expires_s)
        if skew and signature.signed_at > now + SKEW_S["s3"]:
            raise AwsError("AccessDenied", "Request is not yet valid", 403)
        return
    allowed = SKEW_S[signature.family]
    if skew and abs(now - signature.signed_at) > allowed:
        raise refusals.skewed(signature.family, signature.signed_at, now, allowed)


def _chunk_head(body: bytes, position: int) -> tuple[int, str, int]:
    """(size, signature, where the data begins) of the chunk at `position`."""
    end = body.find(b"\r\n", position)
    if end < 0:
        raise _broken_off()
    head = body[position:end].decode("latin-1")
    size, _, extension = head.partition(";")
    name, _, value = extension.partition("=")
    try:
        length = int(size, 16)
    except ValueError:
        raise _broken_off() from None
    return length, value if name == "chunk-signature" else "", end + 2


def _trailer(rest: bytes) -> tuple[bytes, str]:
    """The trailer's canonical bytes (without its signature), and the signature."""
    lines, stated = [], ""
    for line in rest.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"x-amz-trailer-signature":
            stated = value.strip().decode("latin-1")
        elif name:
            lines.append(name.lower() + b":" + value.strip() + b"\n")
    return b"".join(lines), stated


def _checked(key: bytes, text: str, stated: str, signature: Signature) -> str:
    expected = hmac.digest(key, text.encode(), "sha256").hex()
    if not hmac.compare_digest(expected.encode(), stated.encode()):
        raise refusals.mismatch(
            signature.family,
            {"AWSAccessKeyId": signature.access_key, "StringToSign": text, "SignatureProvided": stated},
        )
    return expected


def _broken_off() -> AwsError:
    return AwsError("IncompleteBody", "The request body terminated unexpectedly", 400)
