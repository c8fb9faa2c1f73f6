"""Parameter Store's rules: names, tiers, filters."""

import re
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope

MAX_NAME = 1_011
MAX_LEVELS = 15
MAX_VERSIONS = 100
MAX_LABELS = 10
STANDARD_BYTES, ADVANCED_BYTES = 4_096, 8_192
TYPES = ("String", "StringList", "SecureString")
TIERS = ("Standard", "Advanced", "Intelligent-Tiering")
_NAME = re.compile(r"[a-zA-Z0-9_.\-/]+")
_LABEL = re.compile(r"(?!aws|ssm)[a-zA-Z_.-][a-zA-Z0-9_.-]{0,99}", re.IGNORECASE)
_BAD_NAME = (
    'Parameter name: can\'t be prefixed with "ssm" (case-insensitive). If formed as a path, it can consist of '
    "sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 "
    "symbols .-_"
)


def invalid(message: str, code: str = "ValidationException") -> AwsError:
    return AwsError(code, message)


def check_name(name: str, scope: Scope) -> None:
    """Raises ValidationException, HierarchyLevelLimitExceededException or AccessDeniedException."""
    if not _NAME.fullmatch(name) or name.lower().lstrip("/").startswith("ssm"):
        raise invalid(_BAD_NAME)
    if name.lower().lstrip("/").startswith("aws"):
        raise invalid(f"No access to reserved parameter name: {name}.", "AccessDeniedException")
    if "/" in name and not name.startswith("/"):
        raise invalid("Parameter name must be a fully qualified name.")
    if name.endswith("/") or "//" in name:
        raise invalid(_BAD_NAME)
    if len(arn(scope, name)) - len(arn(scope, "")) > MAX_NAME:
        raise invalid(f"Parameter name is longer than {MAX_NAME} characters.")
    if name.count("/") > MAX_LEVELS:
        raise invalid(
            f"A hierarchy can have a maximum of {MAX_LEVELS} levels. For more information, see Requirements and "
            "constraints for parameter names.",
            "HierarchyLevelLimitExceededException",
        )


def arn(scope: Scope, name: str) -> str:
    return scope.arn("ssm", "parameter" + (name if name.startswith("/") else f"/{name}"))


def split_name(text: str) -> tuple[str, str]:
    """A name or ARN with an optional `:version` or `:label` -> (name, selector)."""
    if text.startswith("arn:"):
        try:
            resource = Arn.parse(text).resource
        except ValueError:
            raise invalid(f"Invalid parameter ARN: {text}") from None
        text = resource.removeprefix("parameter")
        bare = text.partition(":")[0].removeprefix("/")
        text = text.removeprefix("/") if "/" not in bare else text
    name, colon, selector = text.partition(":")
    if colon and not selector:
        raise invalid(f"Invalid parameter name: {text}")
    return name, selector


def choose_tier(asked: str | None, present: str | None, size: int) -> str:
    """The tier of a new version. Raises ValidationException for a value that is too large or a downgrade."""
    tier = asked or present or "Standard"
    if tier not in TIERS:
        raise invalid(
            f"1 validation error detected: Value '{tier}' at 'tier' failed to satisfy constraint: {list(TIERS)}"
        )
    if tier == "Intelligent-Tiering":
        tier = "Advanced" if size > STANDARD_BYTES or present == "Advanced" else "Standard"
    if present == "Advanced" and tier == "Standard":
        raise invalid(
            "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the "
            "advanced-parameter tier to the standard-parameter tier."
        )
    if tier == "Standard" and size > STANDARD_BYTES:
        raise invalid(
            f"Standard tier parameters support a maximum parameter value of {STANDARD_BYTES} characters. To create a "
            "larger parameter value, upgrade the parameter to use the advanced-parameter tier."
        )
    if size > ADVANCED_BYTES:
        raise invalid(f"Advanced tier parameters support a maximum parameter value of {ADVANCED_BYTES} characters.")
    return tier


def check_pattern(pattern: str | None, value: str) -> None:
    if pattern is None:
        return
    try:
        matched = re.search(pattern, value) is not None
    except re.error:
        raise invalid(f"Invalid allowed pattern: {pattern}", "InvalidAllowedPatternException") from None
    if not matched:
        raise invalid(
            f"Parameter value, cannot be validated against allowedPattern: {pattern}",
            "ParameterPatternMismatchException",
        )


def label_is_valid(label: str) -> bool:
    return _LABEL.fullmatch(label) is not None


def check_filters(filters: list[dict[str, Any]], allowed: frozenset[str]) -> None:
    """Raises InvalidFilterKey, InvalidFilterOption."""
    for given in filters:
        key, option = given["Key"], given.get("Option")
        if key not in allowed and not (key.startswith("tag:") and "tag:" in allowed):
            raise invalid(f"The following filter key is not valid: {key}.", "InvalidFilterKey")
        options = ("Recursive", "OneLevel") if key == "Path" else ("Equals", "BeginsWith")
        if key == "Name":
            options = ("Equals", "BeginsWith", "Contains")
        if option is not None and option not in options:
            raise invalid(
                f"The following filter option is not valid: {option}. Valid options include: {list(options)}.",
                "InvalidFilterOption",
            )
        if not given.get("Values") and not key.startswith("tag:"):
            raise invalid(f"The filter values for {key} must not be empty.", "InvalidFilterValue")


def under(path: str, name: str, recursive: bool) -> bool:
    """Whether `name` lies below the hierarchy `path`."""
    base = path.rstrip("/") + "/"
    return name.startswith(base) and (recursive or "/" not in name[len(base) :])


def passes(given: dict[str, Any], facts: dict[str, list[str]]) -> bool:
    """One filter over a parameter's facts, by filter key."""
    key, option, values = given["Key"], given.get("Option"), given.get("Values") or []
    actual = facts.get(key, [])
    if key == "Path":
        return any(under(value, facts["Name"][0], option == "Recursive") for value in values)
    if not values:
        return bool(actual)
    if option == "BeginsWith":
        return any(text.startswith(value) for text in actual for value in values)
    if option == "Contains":
        return any(value in text for text in actual for value in values)
    bare = [value.lstrip("/") for value in values] if key == "Name" else values
    return any((text.lstrip("/") if key == "Name" else text) in bare for text in actual)
