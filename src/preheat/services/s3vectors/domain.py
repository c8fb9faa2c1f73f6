"""The rules of S3 Vectors: names, limits, metadata, errors. Pure.

Limits: service-2.json 2025-07-15 and the user guide's "Limitations and restrictions"; topK may be
10,000 since June 2026.
"""

import json
import math
import re
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preheat.kernel.errors import AwsError

BUCKETS_PER_REGION = 10_000
INDEXES_PER_BUCKET = 10_000
MAX_DIMENSION = 4_096
PUT_LIMIT = DELETE_LIMIT = 500
GET_LIMIT = 100
MAX_TOP_K = 10_000
QUERY_PAGE = 1_000
KEY_LIMIT = 1_024
METADATA_BYTES = 40 * 1024
FILTERABLE_BYTES = 2 * 1024
METADATA_KEYS = 50
CONFIGURED_KEYS = 10
METADATA_KEY_LENGTH = 63
TAGS_PER_RESOURCE = 50
TAG_PATTERN = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"
LIST_BYTES = 1024 * 1024
REQUEST_BYTES = 20 * 1024 * 1024
MODES = ("CLASSIC", "ENHANCED")
METRICS = ("euclidean", "cosine")
LANGUAGES = ("en", "fr", "es", "pt", "it", "de", "nl", "zh", "ja", "ko")
CLASSIC_UNTIL = 1_790_726_400.0
"""30 September 2026 00:00 UTC: CLASSIC is only for buckets older than this."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_BUCKET_ARN = re.compile(r"arn:aws[-a-z0-9]*:s3vectors:[a-z0-9-]+:[0-9]{12}:bucket/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])")
_INDEX_ARN = re.compile(_BUCKET_ARN.pattern + r"/index/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])")
_KMS_ARN = re.compile(r"arn:aws[-a-z0-9]*:kms:[-a-z0-9]*:[0-9]{12}:key/.+")
_TAG = re.compile(r"[\w\s.:/=+\-@]*")


@dataclass(frozen=True, slots=True)
class TextField:
    """A full-text searchable metadata key; `language` is None for the standard analyzer."""

    key: str
    language: str | None


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """One vector index as stored."""

    id: int
    bucket_id: int
    bucket: str
    bucket_created_at: float
    name: str
    arn: str
    created_at: float
    dimension: int
    metric: str
    mode: str
    non_filterable: tuple[str, ...]
    text_fields: tuple[TextField, ...]
    sse_type: str
    kms_key_arn: str | None


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One vector ready to store: `data` little-endian float32, `metadata` JSON text."""

    key: str
    data: bytes
    metadata: str


def invalid(message: str, *fields: tuple[str, str]) -> AwsError:
    """ValidationException; `fields` are (path, message) pairs for its fieldList."""
    listed = {"fieldList": [{"path": path, "message": text} for path, text in fields]} if fields else None
    return AwsError("ValidationException", message, fields=listed)


def constraint(path: str, rule: str, got: str = "Value") -> AwsError:
    """A broken constraint of the model, in the words of AWS's request validator."""
    text = f"{got} at '{path}' failed to satisfy constraint: {rule}"
    return invalid(f"1 validation error detected. {text}", (path, text))


def not_found(what: str) -> AwsError:
    return AwsError("NotFoundException", f"The specified {what} could not be found", 404)


def conflict(message: str) -> AwsError:
    return AwsError("ConflictException", message, 409)


def over_quota(message: str) -> AwsError:
    return AwsError("ServiceQuotaExceededException", message, 402)


def check_length(value: Any, path: str, low: int, high: int) -> None:
    if not isinstance(value, (str, list)) or not low <= len(value) <= high:
        got = f"Value with length {len(value)}" if isinstance(value, (str, list)) else "Value"
        raise constraint(path, f"Member must have length between {low} and {high}, inclusive", got)
    if isinstance(value, str) and not _is_text(value):
        raise constraint(path, "Member must be valid Unicode text")


def check_payload(size: int) -> None:
    """`size` in bytes; raises ValidationException beyond 20 MiB."""
    if size > REQUEST_BYTES:
        raise invalid(f"Request payload must have at most {REQUEST_BYTES} bytes")


def check_range(value: Any, path: str, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise constraint(path, f"Member must be between {low} and {high}, inclusive")


def check_choice(value: Any, path: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise constraint(path, f"Member must satisfy enum value set: [{', '.join(choices)}]")


def check_name(name: Any, path: str, what: str) -> None:
    """Raises ValidationException unless `name` is a bucket or index name."""
    check_length(name, path, 3, 63)
    if not _NAME.fullmatch(name):
        raise invalid(f"Invalid {what} name", (path, f"Invalid {what} name"))


def bucket_of_arn(arn: str) -> str:
    """The bucket's name; raises ValidationException."""
    found = _BUCKET_ARN.fullmatch(arn)
    if found is None:
        raise constraint("/vectorBucketArn", f"Member must satisfy regular expression pattern: {_BUCKET_ARN.pattern}")
    return found[1]


def index_of_arn(arn: str) -> tuple[str, str]:
    """(bucket, index); raises ValidationException."""
    found = _INDEX_ARN.fullmatch(arn)
    if found is None:
        raise constraint("/indexArn", f"Member must satisfy regular expression pattern: {_INDEX_ARN.pattern}")
    return found[1], found[2]


def check_encryption(given: dict | None) -> tuple[str | None, str | None]:
    """(sseType, kmsKeyArn) of an encryptionConfiguration, (None, None) when none is given."""
    if not given:
        return None, None
    sse, key = given.get("sseType", "AES256"), given.get("kmsKeyArn")
    check_choice(sse, "/encryptionConfiguration/sseType", ("AES256", "aws:kms"))
    path = "/encryptionConfiguration/kmsKeyArn"
    if key is not None and not _KMS_ARN.fullmatch(key):
        raise constraint(path, f"Member must satisfy regular expression pattern: ({_KMS_ARN.pattern})")
    if (sse == "aws:kms") != (key is not None):
        text = "kmsKeyArn must be specified if and only if sseType is aws:kms"
        raise invalid(text, (path, text))
    return sse, key


def check_tags(tags: dict[str, str]) -> None:
    if len(tags) > TAGS_PER_RESOURCE:
        raise invalid(f"A resource can have at most {TAGS_PER_RESOURCE} tags")
    for key, value in tags.items():
        check_length(key, "/tags/key", 1, 128)
        check_length(value, f"/tags/{key}", 0, 256)
        for text in (key, value):
            if not _TAG.fullmatch(text):
                raise constraint("/tags", f"Member must satisfy regular expression pattern: {TAG_PATTERN}")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys that start with aws: are reserved", ("/tags", "aws: prefix is reserved"))


def text_fields(given: list[dict] | None, path: str) -> tuple[TextField, ...]:
    """The text search configurations of a request; raises ValidationException."""
    given = given or []
    check_length(given, path, 0, CONFIGURED_KEYS)
    fields = []
    for at, one in enumerate(given):
        check_length(one.get("metadataKey"), f"{path}/{at}/metadataKey", 1, METADATA_KEY_LENGTH)
        language = one.get("language")
        if language is not None:
            check_choice(language, f"{path}/{at}/language", LANGUAGES)
        if "status" in one:
            raise invalid("status is returned by GetIndex and cannot be set", (f"{path}/{at}/status", "Not allowed"))
        fields.append(TextField(one["metadataKey"], language))
    if len({field.key for field in fields}) != len(fields):
        text = "Specify no more than one text search configuration for each metadata key"
        raise invalid(text, (path, text))
    return tuple(fields)


def non_filterable_keys(given: list[str] | None) -> tuple[str, ...]:
    path = "/metadataConfiguration/nonFilterableMetadataKeys"
    given = given or []
    check_length(given, path, 0, CONFIGURED_KEYS)
    for at, key in enumerate(given):
        check_length(key, f"{path}/{at}", 1, METADATA_KEY_LENGTH)
    if len(set(given)) != len(given):
        raise invalid("Non-filterable metadata keys must be unique", (path, "Member must have unique values"))
    return tuple(given)


def vector_row(given: dict, at: int, spec: IndexSpec) -> VectorRow:
    """One member of PutVectors' list as a row. Raises ValidationException naming the vector's key."""
    key = given.get("key")
    check_length(key, f"/vectors/{at}/key", 1, KEY_LIMIT)
    data = pack(given.get("data"), f"/vectors/{at}/data")
    where = f"vectors[{at}].data"
    if len(data) != spec.dimension:
        raise _record(key, f"vector must have length {spec.dimension}, but has length {len(data)}", where)
    if not finite(data):
        raise _record(key, "vector contains invalid values (NaN or Infinity)", where)
    if spec.metric == "cosine" and not any(data):
        raise _record(key, "zero vectors are not allowed with the cosine distance metric", where)
    return VectorRow(key, _bytes(data), _metadata(key, given.get("metadata"), at, spec))


def query_vector(given: Any, spec: IndexSpec) -> bytes:
    """A query's vector as float32 bytes; raises ValidationException."""
    data = pack(given, "/queryVector")
    path = "/queryVector/float32"
    if len(data) != spec.dimension:
        text = f"Query vector must have length {spec.dimension}, but has length {len(data)}"
    elif not finite(data):
        text = "Query vector contains invalid values (NaN or Infinity)"
    elif spec.metric == "cosine" and not any(data):
        text = "Query vector must not be a zero vector with the cosine distance metric"
    else:
        return _bytes(data)
    raise invalid(text, (path, text))


def pack(given: Any, path: str) -> array:
    """The float32 array of a VectorData union; raises ValidationException."""
    values = given.get("float32") if isinstance(given, dict) else None
    if not isinstance(values, list) or len(given) != 1:
        raise constraint(path, "Member must have exactly one of: float32")
    try:
        return array("f", values)
    except (TypeError, OverflowError):
        raise constraint(f"{path}/float32", "Member must be a list of numbers") from None


def finite(data: array) -> bool:
    return math.isfinite(sum(data))


def _bytes(data: array) -> bytes:
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()


def unpack(blob: bytes) -> list[float]:
    data = array("f", blob)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tolist()


def _record(key: str, problem: str, path: str) -> AwsError:
    return invalid(f"Invalid record for key '{key}': {problem}", (path, problem))


def _metadata(key: str, given: Any, at: int, spec: IndexSpec) -> str:
    if given is None:
        return "{}"
    where = f"vectors[{at}].metadata"
    if not isinstance(given, dict):
        raise _record(key, "Metadata must be an object", where)
    if len(given) > METADATA_KEYS:
        raise _record(key, f"Metadata object must have at most {METADATA_KEYS} keys", where)
    searchable = {field.key for field in spec.text_fields}
    for name, value in given.items():
        if not 1 <= len(name) <= METADATA_KEY_LENGTH or name.startswith("$"):
            text = f"Metadata keys have 1 to {METADATA_KEY_LENGTH} characters and do not start with $"
            raise _record(key, text, where)
        if name not in spec.non_filterable or name in searchable:
            _check_value(key, name, value, where)
    try:
        text = json.dumps(given, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError):
        raise _record(key, "Metadata must be a JSON document of finite numbers and valid text", where) from None
    if size > METADATA_BYTES:
        raise _record(key, f"Metadata must have at most {METADATA_BYTES} bytes", where)
    if size > FILTERABLE_BYTES:
        kept = {name: value for name, value in given.items() if name not in spec.non_filterable}
        if len(json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()) > FILTERABLE_BYTES:
            raise _record(key, f"Filterable metadata must have at most {FILTERABLE_BYTES} bytes", where)
    return text


def _check_value(key: str, name: str, value: Any, where: str) -> None:
    """Filterable values are strings, numbers, booleans or lists of them."""
    members = value if isinstance(value, list) else (value,)
    for member in members:
        if not isinstance(member, (str, int, float, bool)):
            raise _record(key, f"Metadata key '{name}' must be a string, number, boolean or a list of these", where)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
