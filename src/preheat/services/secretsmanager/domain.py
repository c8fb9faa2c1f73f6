"""Secrets Manager's rules: names, stages, random passwords, filters."""

import re
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from preheat.kernel.errors import AwsError

CURRENT, PREVIOUS, PENDING = "AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"
MAX_BYTES = 65_536
MAX_VERSIONS = 100
MAX_STAGES = 20
DAY_S = 86_400
SUFFIX_ALPHABET = string.ascii_letters + string.digits
_NAME = re.compile(r"[\w/+=.@!-]{1,512}", re.ASCII)
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
FILTER_KEYS = frozenset({"name", "description", "tag-key", "tag-value", "primary-region", "owning-service", "all"})


def invalid_parameter(message: str) -> AwsError:
    return AwsError("InvalidParameterException", message)


def tags_of(given: Iterable[dict[str, str]]) -> dict[str, str]:
    """Tags by key. Raises InvalidParameterException for one without a key."""
    for tag in given:
        if not tag.get("Key"):
            raise invalid_parameter("A tag must have a key.")
    return {tag["Key"]: tag.get("Value", "") for tag in given}


def invalid_request(message: str) -> AwsError:
    return AwsError("InvalidRequestException", message)


def not_found() -> AwsError:
    return AwsError("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")


def no_version(label: str, what: str) -> AwsError:
    return AwsError(
        "ResourceNotFoundException",
        f"Secrets Manager can't find the specified secret value for {what}: {label}",
    )


def marked_for_deletion() -> AwsError:
    return invalid_request("You can't perform this operation on the secret because it was marked for deletion.")


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise AwsError(
            "ValidationException",
            "Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!",
        )


def check_token(token: str) -> None:
    if not 32 <= len(token) <= 64:
        raise invalid_parameter(
            "ClientRequestToken must be 32-64 characters long." if token else "ClientRequestToken must not be empty."
        )


def secret_value(params: dict[str, Any]) -> tuple[bytes, bool] | None:
    """(bytes, whether it is binary) of SecretString or SecretBinary; None when the request has neither."""
    text, binary = params.get("SecretString"), params.get("SecretBinary")
    if text is not None and binary is not None:
        raise invalid_parameter(
            "You can't specify both a binary secret value and a string secret value in the same secret."
        )
    if text is None and binary is None:
        return None
    value = text.encode() if text is not None else bytes(binary or b"")
    if not value or len(value) > MAX_BYTES:
        raise invalid_parameter(
            f"Failed to create secret: the secret value must have 1 to {MAX_BYTES} bytes; it has {len(value)}."
        )
    return value, text is None


def random_password(params: dict[str, Any], draw: Callable[[int], int]) -> str:
    """GetRandomPassword; `draw(n)` gives an unpredictable number below n."""
    length = params.get("PasswordLength", 32)
    if not 1 <= length <= 4_096:
        raise invalid_parameter("Password length must be between 1 and 4096.")
    excluded = set(params.get("ExcludeCharacters", ""))
    kinds = [
        (string.ascii_uppercase, params.get("ExcludeUppercase", False)),
        (string.ascii_lowercase, params.get("ExcludeLowercase", False)),
        (string.digits, params.get("ExcludeNumbers", False)),
        (PUNCTUATION, params.get("ExcludePunctuation", False)),
        (" ", not params.get("IncludeSpace", False)),
    ]
    alphabets = ["".join(c for c in alphabet if c not in excluded) for alphabet, left_out in kinds if not left_out]
    alphabets = [alphabet for alphabet in alphabets if alphabet]
    if not alphabets:
        raise invalid_parameter("The password does not meet the requirements: every character is excluded.")
    everything = "".join(alphabets)
    characters = [everything[draw(len(everything))] for _ in range(length)]
    if params.get("RequireEachIncludedType", True):
        if length < len(alphabets):
            raise invalid_parameter(
                f"Password length {length} is too short based on the required types.",
            )
        places = list(range(length))
        for alphabet in alphabets:
            place = places.pop(draw(len(places)))
            characters[place] = alphabet[draw(len(alphabet))]
    return "".join(characters)


def passes(filters: list[dict[str, Any]], name: str, description: str, tags: dict[str, str], region: str) -> bool:
    """ListSecrets' filters: prefixes, `!` in front of a value negates, values of one filter are alternatives."""
    facts = {
        "name": [name],
        "description": description.split(),
        "tag-key": list(tags),
        "tag-value": list(tags.values()),
        "primary-region": [region],
        "owning-service": [],
    }
    facts["all"] = [*facts["name"], *facts["description"], *facts["tag-key"], *facts["tag-value"]]
    folded = ("description", "all")
    for given in filters:
        key = given.get("Key", "all")
        actual = [text.lower() if key in folded else text for text in facts[key]]

        def holds(value: str, actual: list[str] = actual, key: str = key) -> bool:
            negated, wanted = value.startswith("!"), value.removeprefix("!")
            wanted = wanted.lower() if key in folded else wanted
            return any(text.startswith(wanted) for text in actual) != negated

        if not any(holds(value) for value in given.get("Values", ())):
            return False
    return True


def is_public(statement: Mapping[str, Any]) -> bool:
    """Whether a policy statement allows everybody, unconditionally."""
    principal = statement.get("Principal")
    everybody = principal == "*" or (isinstance(principal, dict) and "*" in principal.get("AWS", ()))
    return statement["Effect"] == "Allow" and everybody and not statement.get("Condition")
