"""S3's rules as pure functions: names, ranges, conditions, tags, what is kept of a request."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

import msgspec

from preheat.kernel.errors import AwsError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
INLINE_BYTES = 64 * KIB
MAX_PUT_BYTES = 5 * GIB
MIN_PART_BYTES = 5 * MIB
MAX_PARTS = 10_000
MAX_KEY_BYTES = 1_024
MAX_METADATA_BYTES = 2 * KIB
MAX_TAGS = 10
MAX_BUCKET_TAGS = 50
HEADERS = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "WebsiteRedirectLocation",
)
STORAGE_CLASSES = frozenset(
    {
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "GLACIER_IR",
    }
)
ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TAG = re.compile(r"[\w\s+\-=.:/@]*")


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of an object besides its bytes. `parts` are the part sizes of a multipart upload, in order;
    `checksum` is (algorithm, base64, FULL_OBJECT or COMPOSITE)."""

    headers: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: tuple[tuple[str, str], ...] = ()
    checksum: tuple[str, str, str] | None = None
    parts: tuple[int, ...] = ()
    part_checksums: tuple[str, ...] = ()
    expires: float | None = None
    storage: str = "STANDARD"
    encryption: str = "AES256"
    kms_key: str | None = None
    bucket_key: bool = False


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def check_bucket_name(name: str) -> None:
    """Raises InvalidBucketName."""
    if (
        not _BUCKET.fullmatch(name)
        or ".." in name
        or _ADDRESS.fullmatch(name)
        or name.startswith(_RESERVED_STARTS)
        or name.endswith(_RESERVED_ENDS)
    ):
        raise AwsError("InvalidBucketName", "The specified bucket is not valid.", fields={"BucketName": name})


def check_key(key: str) -> None:
    """Raises KeyTooLongError, or InvalidURI for text that is not Unicode."""
    if len(key) * 4 > MAX_KEY_BYTES or not key:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise AwsError("InvalidURI", "Couldn't parse the specified URI.") from None
        if size > MAX_KEY_BYTES:
            raise AwsError(
                "KeyTooLongError",
                "Your key is too long",
                fields={"Size": str(size), "MaxSizeAllowed": str(MAX_KEY_BYTES)},
            )
        if not key:
            raise invalid_argument("Object key must not be empty.", "key", key)


def upload_body(params: Mapping[str, Any], headers: Mapping[str, str] | None) -> Any:
    """The body of an upload. `headers` are the request's, None for calls without HTTP. Raises AwsError 411 when the
    request does not say how long it is, EntityTooLarge beyond 5 GiB."""
    if headers is not None and "content-length" not in headers and "transfer-encoding" not in headers:
        raise AwsError("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
    body = params.get("Body", b"")
    if len(body) > MAX_PUT_BYTES:
        raise AwsError(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            fields={"ProposedSize": str(len(body)), "MaxSizeAllowed": str(MAX_PUT_BYTES)},
        )
    return body


def invalid_argument(message: str, name: str, value: Any) -> AwsError:
    return AwsError("InvalidArgument", message, fields={"ArgumentName": name, "ArgumentValue": str(value)})


def not_implemented(what: str, header: str | None = None) -> AwsError:
    fields = {} if header is None else {"Header": header}
    return AwsError("NotImplemented", what, 501, fields=fields)


def no_such_key(key: str) -> AwsError:
    return AwsError("NoSuchKey", "The specified key does not exist.", 404, fields={"Key": key})


def malformed_xml() -> AwsError:
    return AwsError(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
    )


# -- what is kept of a request --------------------------------------------------------------------------------------


def attributes_of(params: Mapping[str, Any]) -> Attributes:
    """Headers, user metadata, tags and class of a PutObject, CopyObject or CreateMultipartUpload."""
    headers = {name: params[name] for name in HEADERS if name in params}
    encoding = headers.get("ContentEncoding")
    if encoding is not None and "aws-chunked" in encoding:
        kept = ",".join(part for part in encoding.split(",") if part.strip() != "aws-chunked")
        if kept:
            headers["ContentEncoding"] = kept
        else:
            del headers["ContentEncoding"]
    storage = params.get("StorageClass", "STANDARD")
    if storage not in STORAGE_CLASSES:
        raise AwsError("InvalidStorageClass", "The storage class you specified is not valid")
    encryption = params.get("ServerSideEncryption", "AES256")
    if encryption not in ("AES256", "aws:kms", "aws:kms:dsse"):
        raise invalid_argument(
            "The encryption method specified is not supported", "x-amz-server-side-encryption", encryption
        )
    if "SSEKMSKeyId" in params and encryption == "AES256":
        raise invalid_argument(
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : "
            "aws:kms",
            "x-amz-server-side-encryption",
            encryption,
        )
    expires = params.get("Expires")
    return Attributes(
        headers=headers,
        metadata=user_metadata(params.get("Metadata")),
        tags=header_tags(params["Tagging"]) if "Tagging" in params else (),
        expires=None if expires is None else expires.timestamp(),
        storage=storage,
        encryption=encryption,
        kms_key=params.get("SSEKMSKeyId"),
        bucket_key=bool(params.get("BucketKeyEnabled", False)),
    )


def user_metadata(given: Mapping[str, str] | None) -> dict[str, str]:
    """Raises MetadataTooLarge over 2 KB of names and values."""
    if not given:
        return {}
    metadata = {name.lower(): value for name, value in given.items()}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > MAX_METADATA_BYTES:
        raise AwsError(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            fields={"Size": str(size), "MaxSizeAllowed": str(MAX_METADATA_BYTES)},
        )
    return metadata


def header_tags(text: str) -> tuple[tuple[str, str], ...]:
    pairs = parse_qsl(text, keep_blank_values=True)
    if len(dict(pairs)) != len(pairs):
        raise invalid_argument(
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters "
            "without tag name duplicates.",
            "x-amz-tagging",
            text,
        )
    return check_tags(pairs, MAX_TAGS, "Object")


def tag_set(given: list[dict[str, str]], limit: int, what: str) -> tuple[tuple[str, str], ...]:
    pairs = [(tag["Key"], tag["Value"]) for tag in given]
    if len(dict(pairs)) != len(pairs):
        raise AwsError("InvalidTag", "Cannot provide multiple Tags with the same key")
    return check_tags(pairs, limit, what)


def check_tags(pairs: list[tuple[str, str]], limit: int, what: str) -> tuple[tuple[str, str], ...]:
    if len(pairs) > limit:
        raise AwsError("BadRequest", f"{what} tags cannot be greater than {limit}")
    for key, value in pairs:
        if not 1 <= len(key) <= 128 or not _TAG.fullmatch(key):
            raise AwsError("InvalidTag", "The TagKey you have provided is invalid", fields={"TagKey": key})
        if key.startswith("aws:"):
            raise AwsError("InvalidTag", "System tags cannot be added/updated by requester", fields={"TagKey": key})
        if len(value) > 256 or not _TAG.fullmatch(value):
            raise AwsError("InvalidTag", "The TagValue you have provided is invalid", fields={"TagValue": value})
    return tuple(pairs)


# -- conditions -----------------------------------------------------------------------------------------------------


def precondition_failed(condition: str) -> AwsError:
    return AwsError(
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold",
        412,
        fields={"Condition": condition},
    )


def matches(header: str, etag: str) -> bool:
    """Whether an If-Match or If-None-Match value names this entity tag (given without quotes)."""
    return any(part.strip().removeprefix("W/").strip('"') in (etag, "*") for part in header.split(","))


class Conditions(NamedTuple):
    """The four conditional headers of a read; times in epoch seconds."""

    match: str | None
    none_match: str | None
    modified_since: float | None
    unmodified_since: float | None

    @classmethod
    def of(cls, params: Mapping[str, Any], prefix: str = "") -> "Conditions | None":
        names = [prefix + name for name in ("IfMatch", "IfNoneMatch", "IfModifiedSince", "IfUnmodifiedSince")]
        if not any(name in params for name in names):
            return None
        modified, unmodified = params.get(names[2]), params.get(names[3])
        return cls(
            params.get(names[0]),
            params.get(names[1]),
            None if modified is None else modified.timestamp(),
            None if unmodified is None else unmodified.timestamp(),
        )

    def failed(self, etag: str, modified: float) -> str | None:
        """The name of the condition that asks for 412, "304" for not modified, or None."""
        if self.match is not None:
            if not matches(self.match, etag):
                return "If-Match"
        elif self.unmodified_since is not None and modified > self.unmodified_since:
            return "If-Unmodified-Since"
        if self.none_match is not None:
            if matches(self.none_match, etag):
                return "304"
        elif self.modified_since is not None and modified <= self.modified_since:
            return "304"
        return None


def check_write_conditions(params: Mapping[str, Any], key: str, etag: str | None) -> None:
    """If-None-Match and If-Match of a write; `etag` is the present object's, None when there is none."""
    none_match, match = params.get("IfNoneMatch"), params.get("IfMatch")
    if none_match is not None:
        if none_match != "*":
            raise AwsError(
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
                501,
                fields={
                    "Header": "If-None-Match",
                    "additionalMessage": "We don't accept the provided value of If-None-Match header for this API",
                },
            )
        if etag is not None:
            raise precondition_failed("If-None-Match")
    if match is not None:
        if etag is None:
            raise no_such_key(key)
        if not matches(match, etag):
            raise precondition_failed("If-Match")


# -- pieces of a body -----------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """`length` bytes from `offset` of an object of `size`; `partial` when the answer is 206."""

    offset: int
    length: int
    size: int
    partial: bool

    @property
    def content_range(self) -> str:
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{self.size}"


def byte_range(header: str | None, size: int) -> Piece:
    """One byte range of a Range header; anything else means the whole. Raises InvalidRange."""
    whole = Piece(0, size, size, False)
    found = None if header is None else _RANGE.fullmatch(header.strip())
    if found is None or found.groups() == ("", ""):
        return whole
    first, last = found.groups()
    if first == "":
        length = min(int(last), size)
        start = size - length
    else:
        start = int(first)
        if last and int(last) < start:
            return whole
        length = min(int(last) if last else size - 1, size - 1) - start + 1
    if length <= 0 or start >= size:
        raise AwsError(
            "InvalidRange",
            "The requested range is not satisfiable",
            416,
            fields={"RangeRequested": header, "ActualObjectSize": str(size)},
        )
    return Piece(start, length, size, True)


def part_piece(number: int, parts: tuple[int, ...], size: int) -> Piece:
    """The bytes of one part. Raises InvalidPartNumber."""
    sizes = parts or (size,)
    if not 1 <= number <= len(sizes):
        raise AwsError(
            "InvalidPartNumber",
            "The requested partnumber is not satisfiable",
            416,
            fields={"PartNumberRequested": str(number), "ActualPartCount": str(len(sizes))},
        )
    return Piece(sum(sizes[: number - 1]), sizes[number - 1], size, True)


class CopySource(NamedTuple):
    bucket: str
    key: str
    version: str | None


def copy_source(text: str) -> CopySource:
    """The x-amz-copy-source header: `[/]bucket/key[?versionId=v]`, URL-encoded."""
    path, _, query = text.partition("?versionId=")
    bucket, _, key = unquote(path).removeprefix("/").partition("/")
    if bucket.startswith("arn:"):
        raise not_implemented("Copy sources named by an access point are not implemented.", "x-amz-copy-source")
    if not bucket or not key:
        raise invalid_argument(
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey", "x-amz-copy-source", text
        )
    return CopySource(bucket, key, query or None)


def check_version(version: str | None) -> None:
    """Buckets here are unversioned: the only version is "null"."""
    if version is not None and version != "null":
        raise invalid_argument("Invalid version id specified", "versionId", version)


def successor(prefix: str) -> str | None:
    """The smallest text above every text that begins with `prefix`; None when there is none."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        prefix = prefix[:-1]
    return None


def url_encoded(text: str) -> str:
    """As `encoding-type=url` writes keys."""
    return quote(text, safe="/*-._~")


# -- CORS -----------------------------------------------------------------------------------------------------------


def _wildcard(pattern: str, text: str) -> bool:
    head, star, tail = pattern.partition("*")
    if not star:
        return pattern == text
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def cors_headers(
    rules: list[dict[str, Any]], origin: str, method: str, request_headers: list[str] | tuple[str, ...] = ()
) -> dict[str, str] | None:
    """The Access-Control-* headers of the first rule that allows this origin, method and set of request headers
    (for a preflight), or None when no rule does. `rules` as in PutBucketCors."""
    for rule in rules:
        allowed = next((pattern for pattern in rule["AllowedOrigins"] if _wildcard(pattern, origin)), None)
        if allowed is None or method not in rule["AllowedMethods"]:
            continue
        patterns = [pattern.lower() for pattern in rule.get("AllowedHeaders", ())]
        wanted = [name.strip().lower() for name in request_headers if name.strip()]
        if not all(any(_wildcard(pattern, name) for pattern in patterns) for name in wanted):
            continue
        headers = {
            "Access-Control-Allow-Origin": "*" if allowed == "*" else origin,
            "Access-Control-Allow-Methods": ", ".join(rule["AllowedMethods"]),
            "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
        }
        if allowed != "*":
            headers["Access-Control-Allow-Credentials"] = "true"
        if wanted:
            headers["Access-Control-Allow-Headers"] = ", ".join(wanted)
        if rule.get("ExposeHeaders"):
            headers["Access-Control-Expose-Headers"] = ", ".join(rule["ExposeHeaders"])
        if "MaxAgeSeconds" in rule:
            headers["Access-Control-Max-Age"] = str(rule["MaxAgeSeconds"])
        return headers
    return None
