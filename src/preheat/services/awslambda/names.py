"""What the models of the operations allow as FunctionName and Qualifier, and what a request outside of that is told."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from preheat.services.awslambda.domain import invalid
from preheat.services.constraints import refusal, violation
from preheat.services.contract import Context, Outcome, Params

_ARN = r"(arn:(aws[a-zA-Z-]*)?:lambda:)?((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
_NAMESPACED = _ARN + r"([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
_PLAIN = _ARN + r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
_WITH_URL = _ARN + r"([a-zA-Z0-9-_]{1,64})(:((?!\d+$)[0-9a-zA-Z-_]+))?"
_UNQUALIFIED = _ARN + r"([a-zA-Z0-9-_]+)"
_QUALIFIER = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
_OF_PROVISIONED = r"(|[a-zA-Z0-9$_-]+)"
_OF_URL = r"((?!^\d+$)^[0-9a-zA-Z-_]+$)"
_MAX_QUALIFIER = 128
_MAX_NAME = 64


Run = Callable[[Any, Context, Params], Outcome]


class Bounds(NamedTuple):
    """The pattern and the most characters of FunctionName, and the pattern of Qualifier."""

    pattern: str
    longest: int
    qualifier: str


_NAMESPACED_BOUNDS = Bounds(_NAMESPACED, 256, _QUALIFIER)
_PLAIN_BOUNDS = Bounds(_PLAIN, 140, _OF_PROVISIONED)
_URL_BOUNDS = Bounds(_WITH_URL, 140, _OF_URL)
_UNQUALIFIED_BOUNDS = Bounds(_UNQUALIFIED, 140, _QUALIFIER)

_BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(
        (
            "AddPermission", "CreateEventSourceMapping", "DeleteFunction", "DeleteFunctionCodeSigningConfig",
            "DeleteFunctionEventInvokeConfig", "GetFunction", "GetFunctionCodeSigningConfig",
            "GetFunctionConfiguration", "GetFunctionEventInvokeConfig", "GetPolicy", "GetRuntimeManagementConfig",
            "Invoke", "InvokeAsync", "InvokeWithResponseStream", "ListEventSourceMappings",
            "ListFunctionEventInvokeConfigs", "ListVersionsByFunction", "PutFunctionCodeSigningConfig",
            "PutFunctionEventInvokeConfig", "PutRuntimeManagementConfig", "RemovePermission",
            "UpdateEventSourceMapping", "UpdateFunctionEventInvokeConfig",
        ),
        _NAMESPACED_BOUNDS,
    ),
    **dict.fromkeys(
        (
            "CreateAlias", "CreateFunction", "DeleteAlias", "DeleteFunctionConcurrency",
            "DeleteProvisionedConcurrencyConfig", "GetAlias", "GetFunctionConcurrency",
            "GetProvisionedConcurrencyConfig", "ListAliases", "ListProvisionedConcurrencyConfigs", "PublishVersion",
            "PutFunctionConcurrency", "PutProvisionedConcurrencyConfig", "UpdateAlias", "UpdateFunctionCode",
            "UpdateFunctionConfiguration",
        ),
        _PLAIN_BOUNDS,
    ),
    **dict.fromkeys(
        (
            "CreateFunctionUrlConfig", "DeleteFunctionUrlConfig", "GetFunctionUrlConfig", "ListFunctionUrlConfigs",
            "UpdateFunctionUrlConfig",
        ),
        _URL_BOUNDS,
    ),
    **dict.fromkeys(("GetFunctionRecursionConfig", "PutFunctionRecursionConfig"), _UNQUALIFIED_BOUNDS),
}  # fmt: skip


def checked(operation: str, run: Run) -> Run:
    """`run`, after a look at the names of its request."""
    bounds = _BOUNDS.get(operation)
    if bounds is None:
        return run

    def bounded(core: Any, ctx: Context, params: Params) -> Outcome:
        check(operation, bounds, params)
        return run(core, ctx, params)

    return bounded


def check(operation: str, bounds: Bounds, params: Params) -> None:
    """Raises AwsError ValidationException with every violation of the two members; the bare name of a new function that
    is too long is an InvalidParameterValueException."""
    found = []
    name, qualifier = params.get("FunctionName"), params.get("Qualifier")
    if name is not None:
        bare = operation == "CreateFunction" and ":" not in name
        longest = _MAX_NAME if bare else bounds.longest
        found = _violations("functionName", name, bounds.pattern, longest)
        if len(found) == 1 and bare and len(name) > longest:
            raise invalid(f"1 validation error detected: {found[0]}")
    if qualifier is not None:
        found += _violations("qualifier", qualifier, bounds.qualifier, _MAX_QUALIFIER)
    if found:
        raise refusal(found)


def _violations(member: str, value: str, pattern: str, longest: int) -> list[str]:
    found = []
    if re.fullmatch(pattern, value) is None:
        found.append(violation(member, value, f"Member must satisfy regular expression pattern: {pattern}"))
    if len(value) > longest:
        found.append(violation(member, value, f"Member must have length less than or equal to {longest}"))
    return found
