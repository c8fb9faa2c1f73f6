"""The attributes of a queue: their ranges, and what may not stand together. Texts: aws_facts 2.1, 2.2."""

import re
from typing import Any

import msgspec

from preheat.identity.policy import MalformedPolicy, parse
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.sqs.domain import (
    BOOLEANS,
    FIFO_NAME,
    FIFO_ONLY,
    INTEGER_RANGES,
    NAME,
    SETTABLE,
    Queue,
    invalid_attribute_name,
    invalid_attribute_value,
    invalid_value,
)

DIGITS = re.compile(r"[0-9]{1,10}")
MAX_SOURCES = 10
SWITCHES = ("FifoQueue", "ContentBasedDeduplication", "SqsManagedSseEnabled")
MAX_TAGS = 50
TAG = re.compile(r"[\w\s.:/=+\-@]*\Z")


def check_name(name: str, fifo: bool) -> None:
    if fifo and not name.endswith(".fifo"):
        raise invalid_value("The name of a FIFO queue can only include alphanumeric characters, hyphens, or "
                            "underscores, must end with .fifo suffix and be 1 to 80 in length.")  # fmt: skip
    if not (FIFO_NAME if fifo else NAME).match(name):
        raise invalid_value(
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
        )


def check_attributes(attributes: dict[str, str], *, fifo: bool, create: bool) -> None:
    """Raises the AWS error for the first attribute that this kind of queue cannot take."""
    for name, value in attributes.items():
        if name not in SETTABLE:
            raise invalid_attribute_name(f"Unknown Attribute {name}.")
        if name in INTEGER_RANGES and value != "":
            low, high, _ = INTEGER_RANGES[name]
            if not DIGITS.fullmatch(value) or not low <= int(value) <= high:
                raise invalid_attribute_value(f"Invalid value for the parameter {name}.")
        elif name == "FifoQueue":
            if not fifo or (create and value != "true"):
                raise invalid_attribute_name("Unknown Attribute FifoQueue.")
            if value != "true":
                raise invalid_attribute_value(
                    "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported."
                )
        elif name in FIFO_ONLY:
            if not fifo:
                if name == "ContentBasedDeduplication":
                    raise invalid_attribute_name("Unknown Attribute ContentBasedDeduplication.")
                raise invalid_attribute_name(f"You can specify the {name} only when FifoQueue is set to true.")
            if value not in FIFO_ONLY[name]:
                raise invalid_attribute_value(f"Invalid value for the parameter {name}.")
        elif name == "SqsManagedSseEnabled" and value not in BOOLEANS:
            raise invalid_attribute_value("Invalid value for the parameter SqsManagedSseEnabled.")
        elif name in ("RedrivePolicy", "RedriveAllowPolicy", "Policy") and value:
            _check_document(name, value)


def plain_booleans(attributes: dict[str, str]) -> dict[str, str]:
    """`attributes` with True and False in small letters, as they are shown."""
    return {name: value.lower() if name in SWITCHES else value for name, value in attributes.items()}


def plain_numbers(attributes: dict[str, str]) -> dict[str, str]:
    """`attributes` with their numbers as they are shown: without leading zeros, in a RedrivePolicy without quotes."""
    shown = {
        name: str(int(value)) if name in INTEGER_RANGES and value != "" else value
        for name, value in attributes.items()
    }
    policy = msgspec.json.decode(shown["RedrivePolicy"]) if shown.get("RedrivePolicy") else {}
    if isinstance(policy.get("maxReceiveCount"), str):
        policy["maxReceiveCount"] = int(policy["maxReceiveCount"])
        shown["RedrivePolicy"] = msgspec.json.encode(policy).decode()
    return shown


def check_tags(queue_name: str, tags: dict[str, str]) -> None:
    """Raises InvalidParameterValue."""
    if len(tags) > MAX_TAGS:
        raise invalid_value(f"Too many tags added for queue {queue_name}.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or not TAG.match(key) or key.lower().startswith("aws:"):
            raise invalid_value(f"Value {key} for parameter TagKey is invalid. Reason: Tag keys have 1 to 128 letters, "
                                "digits, spaces or _.:/=+-@ and do not start with aws:.")  # fmt: skip
        if len(value) > 256 or not TAG.match(value):
            raise invalid_value(f"Value {value} for parameter TagValue is invalid. Reason: Tag values have up to 256 "
                                "letters, digits, spaces or _.:/=+-@.")  # fmt: skip


def check_together(attributes: dict[str, str]) -> None:
    """`attributes` as they will be kept. Raises InvalidAttributeValue, InvalidAttributeName."""
    throughput = attributes.get("FifoThroughputLimit")
    if throughput == "perMessageGroupId" and attributes.get("DeduplicationScope") != "messageGroup":
        raise invalid_attribute_value("The perMessageGroupId value is allowed only when the value for "
                                      "DeduplicationScope is messageGroup.")  # fmt: skip


def settle_encryption(held: dict[str, str], changes: dict[str, str]) -> dict[str, str]:
    """`held` with `changes`: of the two kinds of encryption the one that was asked for last. Raises
    InvalidAttributeName for both at once."""
    if changes.get("SqsManagedSseEnabled") == "true" and changes.get("KmsMasterKeyId"):
        raise invalid_attribute_name("You can use one type of server-side encryption (SSE) at one time. You can either "
                                     "enable KMS SSE or SQS SSE.")  # fmt: skip
    merged = {**held, **changes}
    if changes.get("KmsMasterKeyId"):
        merged["SqsManagedSseEnabled"] = "false"
    elif changes.get("SqsManagedSseEnabled") == "true":
        merged.pop("KmsMasterKeyId", None)
        merged.pop("KmsDataKeyReusePeriodSeconds", None)
    return merged


def _check_document(name: str, value: str) -> None:
    if name == "Policy":
        _check_policy(value)
        return
    try:
        document = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise invalid_attribute_value(f"Invalid value for the parameter {name}. Reason: it is not valid JSON "
                                      f"({error}).") from error  # fmt: skip
    if not isinstance(document, dict):
        raise invalid_attribute_value(f"Invalid value for the parameter {name}.")
    if name == "RedrivePolicy":
        check_redrive_policy(value, document)
    else:
        _check_allow_policy(value, document)


def _check_policy(value: str) -> None:
    try:
        statements = parse(value)
    except MalformedPolicy as error:
        raise invalid_attribute_value("Invalid value for the parameter Policy.") from error
    for statement in statements:
        actions = statement.get("Action", statement.get("NotAction"))
        listed = [actions] if isinstance(actions, str) else actions
        named = "Principal" in statement or "NotPrincipal" in statement
        if not named or any(action != "*" and not action.lower().startswith("sqs:") for action in listed):
            raise invalid_attribute_value("Invalid value for the parameter Policy.")


def _check_allow_policy(value: str, document: dict[str, Any]) -> None:
    permission, arns = document.get("redrivePermission"), document.get("sourceQueueArns")
    listed = isinstance(arns, list) and 1 <= len(arns) <= MAX_SOURCES and all(map(_is_queue_arn, arns))
    known = permission in ("allowAll", "denyAll", "byQueue") and set(document) <= {
        "redrivePermission",
        "sourceQueueArns",
    }
    if not known or (not listed if permission == "byQueue" else arns is not None):
        raise invalid_attribute_value(f"Value {value} for parameter RedriveAllowPolicy is invalid. Reason: Amazon "
                                      "SQS can't create the redrive allow policy.")  # fmt: skip


def _is_queue_arn(text: Any) -> bool:
    try:
        return isinstance(text, str) and Arn.parse(text).service == "sqs"
    except ValueError:
        return False


def lets_in(target: Queue, source: str) -> bool:
    """Whether `target`'s RedriveAllowPolicy lets the queue with the ARN `source` use it for dead letters."""
    return target.admits is None or source in target.admits


def check_redrive_policy(value: str, document: dict[str, Any]) -> None:
    def refuse(reason: str) -> AwsError:
        return invalid_value(f"Value {value} for parameter RedrivePolicy is invalid. Reason: {reason}")

    if "deadLetterTargetArn" not in document or "maxReceiveCount" not in document:
        absent = "maxReceiveCount" if "deadLetterTargetArn" in document else "deadLetterTargetArn"
        raise refuse(f"Redrive policy does not contain mandatory attribute: {absent}.")
    given = document["maxReceiveCount"]
    whole = (isinstance(given, int) and not isinstance(given, bool)) or (isinstance(given, str) and given.isdecimal())
    count = int(given) if whole else 0
    if not 1 <= count <= 1_000:
        raise refuse("Invalid value for maxReceiveCount: "
                     f"{document['maxReceiveCount']}, valid values are from 1 to 1000 both inclusive.")  # fmt: skip
    if not _is_queue_arn(document["deadLetterTargetArn"]):
        raise refuse("Invalid value for deadLetterTargetArn.")


