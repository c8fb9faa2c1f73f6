"""SQS's rules, pure: names, attributes, digests, receipt handles. Texts and ranges: aws_facts section 2."""

import binascii
import hashlib
import re
import struct
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Scope

MAX_MESSAGE_BYTES = 1_048_576
DEDUPLICATION_WINDOW_MS = 300_000
MAX_VISIBILITY_S = 43_200
MAX_DIGITS = 38
FORM = "application/x-www-form-urlencoded"
QUEUE_PATH = re.compile(r"/[0-9]{12}/[A-Za-z0-9_.-]+/?\Z")
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
FIFO_NAME = re.compile(r"[A-Za-z0-9_-]{1,75}\.fifo\Z")
ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
ATTRIBUTE_NAME = re.compile(r"[\w.-]{1,256}\Z")
PUNCTUATED = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}\Z")
BAD_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
BAD_BYTES = bytes({*range(32)} - {*b"\t\n\r"})
GOOD_TEXT = "the set of allowed characters is #x9 | #xA | #xD | [#x20-#xD7FF] | [#xE000-#xFFFD] | [#x10000-#x10FFFF]."
INTEGER_RANGES = {
    "VisibilityTimeout": (0, 43_200, "30"),
    "DelaySeconds": (0, 900, "0"),
    "MessageRetentionPeriod": (60, 1_209_600, "345600"),
    "ReceiveMessageWaitTimeSeconds": (0, 20, "0"),
    "MaximumMessageSize": (1_024, MAX_MESSAGE_BYTES, str(MAX_MESSAGE_BYTES)),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400, "300"),
}
FIFO_ONLY = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
BOOLEANS = ("true", "false")
TEXT_ATTRIBUTES = ("Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId")
COMPUTED = (
    "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed",
    "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn",
)  # fmt: skip
SETTABLE = (*INTEGER_RANGES, *FIFO_ONLY, *TEXT_ATTRIBUTES, "SqsManagedSseEnabled", "FifoQueue")
MAX_ROW = 2**63 - 1
RECEIPT = struct.Struct(">IQQ")


@dataclass(frozen=True, slots=True)
class RedrivePolicy:
    dead_letter_arn: str
    max_receive_count: int


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue with its attributes parsed; times in the units of their names."""

    id: int
    scope: Scope
    name: str
    attributes: dict[str, str]
    created_s: int
    modified_s: int
    arn: str
    topic: str
    fifo: bool
    visibility_ms: int
    delay_ms: int
    retention_ms: int
    wait_s: int
    max_bytes: int
    redrive: RedrivePolicy | None
    admits: frozenset[str] | None
    """The ARNs of the queues that may send their dead letters here; None: all."""


def make_queue(row: Any) -> Queue:
    """A Queue of a row of `sqs_queues`."""
    attributes = msgspec.json.decode(row["attributes"])
    scope = Scope(row["account"], row["region"])
    arn = scope.arn("sqs", row["name"])

    def number(name: str) -> int:
        return int(attributes.get(name) or INTEGER_RANGES[name][2])

    policy = attributes.get("RedrivePolicy")
    redrive = None
    if policy:
        document = msgspec.json.decode(policy)
        redrive = RedrivePolicy(document["deadLetterTargetArn"], int(document["maxReceiveCount"]))
    return Queue(
        id=row["id"],
        scope=scope,
        name=row["name"],
        attributes=attributes,
        created_s=row["created_s"],
        modified_s=row["modified_s"],
        arn=arn,
        topic="sqs:" + arn,
        fifo=row["name"].endswith(".fifo"),
        visibility_ms=number("VisibilityTimeout") * 1_000,
        delay_ms=number("DelaySeconds") * 1_000,
        retention_ms=number("MessageRetentionPeriod") * 1_000,
        wait_s=number("ReceiveMessageWaitTimeSeconds"),
        max_bytes=number("MaximumMessageSize"),
        redrive=redrive,
        admits=_admits(attributes.get("RedriveAllowPolicy")),
    )


def _admits(policy: str | None) -> frozenset[str] | None:
    document = msgspec.json.decode(policy) if policy else {"redrivePermission": "allowAll"}
    if document["redrivePermission"] == "allowAll":
        return None
    return frozenset(document.get("sourceQueueArns") or ())


# -- errors -----------------------------------------------------------------------------------------------------------


def no_such_queue(query: bool = False) -> AwsError:
    """`query`: in the words of the older protocol."""
    return AwsError(
        "QueueDoesNotExist",
        f"The specified queue does not exist{' for this wsdl version' if query else ''}.",
        query_code="AWS.SimpleQueueService.NonExistentQueue",
    )


def invalid_value(message: str) -> AwsError:
    return AwsError("InvalidParameterValueException", message, query_code="InvalidParameterValue")


def is_query(request: HttpRequest | None) -> bool:
    """Whether a call came over the older protocol: as a form, or in the URL."""
    if request is None:
        return False
    return request.headers.get("content-type", "").startswith(FORM) or "Action=" in request.query


def wrong_queue_type(name: str, value: object) -> AwsError:
    """A parameter of FIFO queues for a standard one, or the other way round."""
    reason = "The request include parameter that is not valid for this queue type."
    return invalid_value(f"Value {value} for parameter {name} is invalid. Reason: {reason}")


def missing(name: str) -> AwsError:
    return AwsError(
        "MissingRequiredParameterException",
        f"The request must contain the parameter {name}.",
        query_code="MissingParameter",
    )


def invalid_attribute_value(message: str) -> AwsError:
    return AwsError("InvalidAttributeValue", message, query_code="InvalidAttributeValue")


def invalid_attribute_name(message: str) -> AwsError:
    return AwsError("InvalidAttributeName", message, query_code="InvalidAttributeName")


def simple(code: str, message: str, status: int = 400) -> AwsError:
    """The errors whose query code has the service's long prefix."""
    return AwsError(code, message, status, query_code=f"AWS.SimpleQueueService.{code}")


def bad_handle(handle: str) -> AwsError:
    return AwsError(
        "ReceiptHandleIsInvalid",
        f'The input receipt handle "{handle}" is not a valid receipt handle.',
        404,
        query_code="ReceiptHandleIsInvalid",
    )


# -- messages ---------------------------------------------------------------------------------------------------------


def check_body(body: str) -> None:
    if not body:
        raise missing("MessageBody")
    check_text(body)


def check_text(text: str) -> None:
    """Raises InvalidMessageContents for characters that XML does not have."""
    found = _bad_character(text)
    if found is not None:
        raise AwsError("InvalidMessageContents",
                       f"Invalid binary character '{found}' was found in the message body, {GOOD_TEXT}")  # fmt: skip


def _bad_character(text: str) -> str | None:
    """The first character that XML does not have, as `#x8`."""
    if text.isascii() and len(text.encode().translate(None, BAD_BYTES)) == len(text):
        return None
    match = BAD_TEXT.search(text)
    return None if match is None else f"#x{ord(match[0]):X}"


def check_group_text(name: str, value: str) -> None:
    if not PUNCTUATED.match(value):
        raise invalid_value(f"Value {value} for parameter {name} is invalid. Reason: {name} can only include "
                            "alphanumeric and punctuation characters. 1 to 128 in length.")  # fmt: skip


def attributes_size(attributes: dict[str, Any]) -> int:
    """Bytes that message attributes count towards the message's size."""
    total = 0
    for name, value in attributes.items():
        content = value.get("BinaryValue")
        size = len(content) if content is not None else len(value.get("StringValue", "").encode())
        total += len(name.encode()) + len(value.get("DataType", "").encode()) + size
    return total


def message_size(message: dict[str, Any]) -> int:
    """Bytes of the body and the attributes of a message to be sent."""
    body = message.get("MessageBody", "")
    size = len(body) if body.isascii() else len(body.encode())
    attributes = message.get("MessageAttributes")
    return size + attributes_size(attributes) if attributes else size


def check_message_attributes(attributes: dict[str, Any]) -> None:
    if len(attributes) > 10:
        raise invalid_value(f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].")
    for name, value in attributes.items():
        if not ATTRIBUTE_NAME.match(name) or name.startswith(".") or name.endswith(".") or ".." in name:
            raise invalid_value(f"Message (user) attribute name '{name}' can contain only A-Z, a-z, 0-9, underscore "
                                "(_), hyphen (-), and period (.), and not start or end with a period.")  # fmt: skip
        if name.lower().startswith(("aws.", "amazon.")):
            raise invalid_value(f"Message (user) attribute name '{name}' starts with a reserved prefix.")
        kind = value.get("DataType", "")
        base = kind.partition(".")[0]
        if base not in ("String", "Number", "Binary") or len(kind) > 256:
            raise invalid_value(f"The type of message (user) attribute '{name}' is invalid. You must use only the "
                                "following supported type prefixes: Binary, Number, String.")  # fmt: skip
        member = "BinaryValue" if base == "Binary" else "StringValue"
        content = value.get(member)
        if not content:
            raise invalid_value(f"Message (user) attribute '{name}' must contain a non-empty value of type '{base}'.")
        if base == "Number" and not _is_number(content):
            raise invalid_value(f"Can't cast the value of message (user) attribute '{name}' to a number.")
        found = None if base == "Binary" else _bad_character(content)
        if found is not None:
            raise invalid_value(f"Invalid binary character '{found}' was found in the message attribute '{name}' "
                                f"value, {GOOD_TEXT}")  # fmt: skip


def _is_number(text: str) -> bool:
    """At most 38 digits, from 10**-128 to 10**126."""
    match = NUMBER.fullmatch(text)
    if match is None:
        return False
    digits = match[1].replace(".", "").strip("0")
    value = abs(Decimal(text)) if len(text) < MAX_DIGITS * 8 else None
    return len(digits) <= MAX_DIGITS and value is not None and (
        value == 0 or Decimal("1e-128") <= value <= Decimal("1e126")
    )


def check_system_attributes(attributes: dict[str, Any]) -> None:
    """Only AWSTraceHeader, a String. Raises InvalidParameterValue."""
    for name, value in attributes.items():
        if name != "AWSTraceHeader":
            raise invalid_value(f"Message system attribute name '{name}' is invalid.")
        if value.get("DataType") != "String" or not value.get("StringValue"):
            raise invalid_value(f"Message (system) attribute '{name}' must contain a non-empty value of type 'String'.")


def body_md5(body: str) -> str:
    return hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()


def measured(body: str) -> tuple[int, str]:
    """(bytes, MD5) of a body. Raises AwsError as `check_body`."""
    encoded = body.encode()
    size = len(encoded)
    if not size or len(body) != size or len(encoded.translate(None, BAD_BYTES)) != size:
        check_body(body)
    return size, hashlib.md5(encoded, usedforsecurity=False).hexdigest()


def attributes_md5(attributes: dict[str, Any]) -> str:
    """The digest SDKs check: names sorted; length-prefixed name, type, one byte of transport type, value."""
    out = bytearray()
    for name in sorted(attributes):
        value = attributes[name]
        for text in (name, value["DataType"]):
            encoded = text.encode()
            out += len(encoded).to_bytes(4, "big") + encoded
        binary = value.get("BinaryValue")
        content = binary if binary is not None else value["StringValue"].encode()
        out += b"\x02" if binary is not None else b"\x01"
        out += len(content).to_bytes(4, "big") + content
    return hashlib.md5(out, usedforsecurity=False).hexdigest()


def receipt_handle(queue_id: int, message: int, nonce: int) -> str:
    return binascii.b2a_base64(RECEIPT.pack(queue_id, message, nonce), newline=False).decode()


def parse_handle(handle: str) -> tuple[int, int, int]:
    """(queue id, message row, nonce). Raises ReceiptHandleIsInvalid."""
    try:
        queue_id, message, nonce = RECEIPT.unpack(binascii.a2b_base64(handle, strict_mode=True))
        if max(message, nonce) > MAX_ROW:
            raise bad_handle(handle)
        return queue_id, message, nonce
    except (binascii.Error, struct.error, ValueError) as error:
        raise bad_handle(handle) from error


def check_entries(entries: list[dict[str, Any]], operation: str) -> None:
    """The rules every batch shares."""
    if not entries:
        raise simple("EmptyBatchRequest", f"There should be at least one {operation}RequestEntry in the request.")
    if len(entries) > 10:
        raise simple("TooManyEntriesInBatchRequest",
                     f"Maximum number of entries per request are 10. You have sent {len(entries)}.")  # fmt: skip
    seen = set()
    for entry in entries:
        name = entry.get("Id") or ""
        if not ENTRY_ID.match(name):
            raise simple("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens "
                         "and underscores. It can be at most 80 letters long.")  # fmt: skip
        if name in seen:
            raise simple("BatchEntryIdsNotDistinct", f"Id {name} repeated.")
        seen.add(name)


def check_range(name: str, value: int, low: int, high: int, reason: str) -> None:
    if not low <= value <= high:
        raise invalid_value(f"Value {value} for parameter {name} is invalid. Reason: {reason}")


def unsupported(message: str) -> AwsError:
    return AwsError("UnsupportedOperation", message, query_code="AWS.SimpleQueueService.UnsupportedOperation")


def receipt_nonce(now_ms: int, chance: int) -> int:
    """What tells one receive of a message from another: when it was, and 20 bits of chance."""
    return (now_ms << 20) | (chance & 0xFFFFF) | 1


def received_at(nonce: int) -> int:
    """When the receive of a nonce was, epoch milliseconds."""
    return nonce >> 20


def came_after(row: Any, nonce: int) -> bool:
    """Whether a message only has the row of the one that was received under `nonce` and is gone."""
    return row["receive_count"] == 0 or row["first_received"] > received_at(nonce)
