"""What is published: its checks, its texts for each protocol, and the envelopes in which it is delivered."""

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.contract import Params
from preheat.services.deliveries import Attributes
from preheat.services.sns.domain import PUNCTUATED, Topic, invalid, invalid_value

MAX_SUBJECT = 100
SEQUENCE_BASE = 10**19
ATTRIBUTE_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")
ATTRIBUTE_TYPE = re.compile(r"(String|Number|Binary)(\..+)?\Z")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
SUBJECT = re.compile(r"[^\x00-\x1f\x7f\s][^\x00-\x1f\x7f]*\Z")


@dataclass(slots=True)
class Message:
    """`texts` by protocol, "default" for the others. `attributes` as in Publish's MessageAttributes; `sequence` of a
    FIFO topic's message. `memory` is for whoever renders it: what is the same for many subscriptions."""

    id: str
    topic: Topic
    texts: dict[str, str]
    timestamp: str
    subject: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    dedup: str | None = None
    sequence: int | None = None
    size: int = 0
    memory: dict[Any, Any] = field(default_factory=dict)

    def text(self, protocol: str) -> str:
        return self.texts.get(protocol, self.texts["default"])

    @property
    def sequence_number(self) -> str | None:
        return None if self.sequence is None else str(SEQUENCE_BASE + self.sequence)


def instant(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


# -- checks -----------------------------------------------------------------------------------------------------------


def check_text(params: Params) -> None:
    """Message and Subject. Raises InvalidParameter."""
    subject = params.get("Subject")
    if subject is not None and (len(subject) > MAX_SUBJECT or not SUBJECT.match(subject)):
        raise invalid("Subject")
    if not params.get("Message"):
        raise invalid("Empty message")


def check_group(params: Params, topic: Topic) -> None:
    """MessageGroupId and MessageDeduplicationId for this kind of topic. Raises InvalidParameter."""
    group, dedup = params.get("MessageGroupId"), params.get("MessageDeduplicationId")
    if topic.fifo:
        if not group:
            raise invalid("The MessageGroupId parameter is required for FIFO topics")
        if not dedup and topic.attributes.get("ContentBasedDeduplication") != "true":
            raise invalid(
                "The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided "
                "explicitly"
            )
    elif dedup is not None:
        raise invalid(
            "MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid "
            "for this topic type"
        )
    for name, value in (("MessageGroupId", group), ("MessageDeduplicationId", dedup)):
        if value is not None and not PUNCTUATED.match(value):
            raise invalid(
                f"{name} Reason: {name} can only include alphanumeric and punctuation characters. 1 to 128 in length"
            )


def check_attributes(attributes: dict[str, Any], position: int | None = None) -> None:
    """MessageAttributes; `position` is that of the entry in a batch, from 1. Raises ParameterValueInvalid."""
    for name, attribute in attributes.items():
        _check_attribute_name(name)
        kind = attribute.get("DataType")
        if kind is None:
            entry = "" if position is None else f"publishBatchRequestEntries.{position}.member."
            raise AwsError(
                "ValidationError",
                f"1 validation error detected: Value null at '{entry}messageAttributes.{name}.member.dataType' failed "
                "to satisfy constraint: Member must not be null",
            )
        if not ATTRIBUTE_TYPE.match(kind):
            raise invalid_value(
                f"The message attribute '{name}' has an invalid message attribute type, the set of supported type "
                "prefixes is Binary, Number, and String."
            )
        _check_attribute_value(name, kind, attribute)


def _check_attribute_name(name: str) -> None:
    if len(name.encode()) > 256:
        raise invalid_value("Length of message attribute name must be less than 256 bytes.")
    if ATTRIBUTE_NAME.match(name):
        return
    if name.startswith("."):
        raise invalid_value("Invalid message attribute name starting with character '.' was found.")
    if name.endswith("."):
        raise invalid_value("Invalid message attribute name ending with character '.' was found.")
    for character in name:
        if not (character.isascii() and (character.isalnum() or character in "_-.")):
            raise invalid_value(
                f"Invalid non-alphanumeric character '#x{ord(character):X}' was found in the message attribute name. "
                "Can only include alphanumeric characters, hyphens, underscores, or dots."
            )
    if name:
        raise invalid_value("Message attribute name can not have successive '.' character.")
    raise invalid_value("Message attribute name can not be empty.")


def _check_attribute_value(name: str, kind: str, attribute: Params) -> None:
    empty = invalid_value(
        f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type "
        f"'{kind}'."
    )
    if "StringValue" not in attribute and "BinaryValue" not in attribute:
        raise empty
    which = "Binary" if kind.startswith("Binary") else "String"
    if f"{which}Value" not in attribute:
        raise invalid_value(f"The message attribute '{name}' with type '{kind}' must use field '{which}'.")
    value = attribute[f"{which}Value"]
    if not value:
        raise empty
    if kind.startswith("Number") and not kind.endswith(".Array") and not NUMBER.match(value):
        raise invalid_value(f"Could not cast message attribute '{name}' value to number.")


def texts(params: Params, protocol: str = "default") -> dict[str, str]:
    """The message for each protocol, of a request's Message and MessageStructure. A text for the `protocol` to which
    alone it goes will do instead of the default. Raises InvalidParameter."""
    structure = params.get("MessageStructure")
    if structure is None:
        return {"default": params["Message"]}
    if structure != "json":
        raise invalid("MessageStructure")
    try:
        document = msgspec.json.decode(params["Message"])
    except (msgspec.DecodeError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise invalid("Message Structure - JSON message body failed to parse")
    found = {name: text for name, text in document.items() if isinstance(text, str)}
    if "default" not in found and protocol not in found:
        raise invalid("Message Structure - No default entry in JSON message body")
    return found


def size_of(params: Params) -> int:
    """Bytes of a message with its attributes."""
    size = len(params.get("Message", "").encode())
    for name, attribute in (params.get("MessageAttributes") or {}).items():
        size += len(name.encode()) + len(attribute.get("DataType", ""))
        size += len(attribute.get("StringValue", "").encode()) + len(attribute.get("BinaryValue", b""))
    return size


# -- what is delivered ------------------------------------------------------------------------------------------------


def notification(message: Message, protocol: str) -> dict[str, Any]:
    """The signed members of a notification's envelope, and its sequence number."""
    document: dict[str, Any] = {"Type": "Notification", "MessageId": message.id}
    if message.sequence is not None:
        document["SequenceNumber"] = message.sequence_number
    document["TopicArn"] = message.topic.arn
    if message.subject is not None:
        document["Subject"] = message.subject
    document["Message"] = message.text(protocol)
    document["Timestamp"] = message.timestamp
    return document


def shown_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Message attributes as an envelope shows them."""
    return {
        name: {"Type": attribute["DataType"], "Value": _text(attribute)} for name, attribute in attributes.items()
    }


def carried_attributes(attributes: dict[str, Any]) -> Attributes:
    """Message attributes as a delivery carries them."""
    return {name: (attribute["DataType"], _text(attribute)) for name, attribute in attributes.items()}


def _text(attribute: Params) -> str:
    value = attribute.get("BinaryValue")
    return attribute["StringValue"] if value is None else base64.b64encode(value).decode()
