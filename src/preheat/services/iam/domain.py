"""IAM's names, limits and words."""

import re
from collections.abc import Callable
from typing import Any

from preheat.identity.policy import MalformedPolicy
from preheat.kernel.errors import AwsError

NAME_LIMITS = {"user": 64, "role": 64, "group": 128, "policy": 128}
ID_PREFIX = {"user": "AIDA", "role": "AROA", "group": "AGPA", "policy": "ANPA"}
INLINE_BYTES = {"user": 2_048, "role": 10_240, "group": 5_120}
MANAGED_BYTES = 6_144
TRUST_BYTES = 2_048
ATTACHED = {"user": 10, "role": 10, "group": 10}
MAX_VERSIONS = 5
MAX_KEYS = 2
MAX_TAGS = 50
_NAME = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH = re.compile(r"/|/[\x21-\x7e]+/")
ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def check_name(kind: str, name: str) -> None:
    """Raises ValidationError."""
    member = f"{kind}Name"
    if not _NAME.fullmatch(name):
        raise AwsError(
            "ValidationError",
            f"The specified value for {member} is invalid. It must contain only alphanumeric characters and/or the "
            "following: +=,.@_-",
        )
    if len(name) > NAME_LIMITS[kind]:
        raise AwsError(
            "ValidationError",
            f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: Member must "
            f"have length less than or equal to {NAME_LIMITS[kind]}",
        )


def check_path(path: str) -> None:
    if not _PATH.fullmatch(path) or len(path) > 512:
        raise AwsError(
            "ValidationError",
            "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric "
            "characters and/or / characters.",
        )


def check_document(check: Callable[[str], Any], text: str) -> None:
    """Raises MalformedPolicyDocument in the checker's words."""
    try:
        check(text)
    except MalformedPolicy as error:
        raise AwsError("MalformedPolicyDocument", str(error)) from None


def no_such(kind: str, name: str) -> AwsError:
    return AwsError("NoSuchEntity", f"The {kind} with name {name} cannot be found.", 404)


def no_such_policy(arn: str) -> AwsError:
    return AwsError("NoSuchEntity", f"Policy {arn} was not found.", 404)


def delete_conflict(what: str) -> AwsError:
    return AwsError("DeleteConflict", f"Cannot delete entity, must {what} first.", 409)


def limit_exceeded(message: str) -> AwsError:
    return AwsError("LimitExceeded", message, 409)


def tag_map(given: list[dict[str, str]], present: dict[str, str] | None = None) -> dict[str, str]:
    """`present` with the given tags put in. Raises InvalidInput, LimitExceeded."""
    tags = dict(present or {})
    seen: set[str] = set()
    for tag in given:
        key, value = tag["Key"], tag["Value"]
        if key.lower() in seen:
            raise AwsError("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
        seen.add(key.lower())
        if key.lower().startswith("aws:") or not 1 <= len(key) <= 128 or len(value) > 256:
            raise AwsError("ValidationError", f"The tag {key} is invalid.")
        for other in [name for name in tags if name.lower() == key.lower()]:
            del tags[other]
        tags[key] = value
    if len(tags) > MAX_TAGS:
        raise limit_exceeded(f"Cannot exceed quota for TagsPerEntity: {MAX_TAGS}")
    return tags


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
