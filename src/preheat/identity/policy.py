"""Policy documents: what they allow. Pure; an explicit deny wins, then an allow, else nothing is allowed.

    evaluate(request, identity=..., resource=..., boundary=..., session=...) -> Decision

`Request.context` has the condition keys of the request in lower case (`aws:sourceip`), each a list of strings; a key
that is absent is a missing key.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

Effect = Literal["allow", "deny", "implicit"]
Statement = Mapping[str, Any]
_MARKED = {"*": "\ue000", "?": "\ue001"}
_UNMARKED = {mark: char for char, mark in _MARKED.items()}
_VARIABLE = re.compile(r"\$\{([^}]*)\}")


class MalformedPolicy(ValueError):
    """The text is not a policy document; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One action on one resource by a principal. `principals` are all the ARNs and names that a policy may mean the
    caller by: its own, its role's, its account's, `*` is understood."""

    action: str
    resource: str
    principal: str
    account: str
    principals: tuple[str, ...] = ()
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """`source` is which kind of policy decided: "identity-based", "resource-based", "permissions boundary",
    "session"."""

    allowed: bool
    explicit: bool
    source: str

    def message(self, request: Request) -> str:
        """The denial in AWS's words."""
        start = f"User: {request.principal} is not authorized to perform: {request.action} on resource: "
        start += request.resource
        article = "an" if self.source.startswith("identity") else "a"
        source = self.source if self.source.endswith("boundary") else f"{self.source} policy"
        if self.explicit:
            return f"{start} with an explicit deny in {article} {source}"
        return f"{start} because no {source} allows the {request.action} action"


# -- reading ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def parse(text: str) -> tuple[Statement, ...]:
    """The statements of a policy document. Raises MalformedPolicy."""
    try:
        document = json.loads(text)
    except ValueError:
        raise MalformedPolicy("Syntax errors in policy.") from None
    if not isinstance(document, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    unknown = set(document) - {"Version", "Id", "Statement"}
    if unknown:
        raise MalformedPolicy(f"Syntax error: unknown element {min(unknown)}.")
    if document.get("Version", "2008-10-17") not in ("2012-10-17", "2008-10-17"):
        raise MalformedPolicy("The policy must contain a valid version string")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise MalformedPolicy("Syntax errors in policy.")
    for statement in statements:
        _check_statement(statement)
    identifiers = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(set(identifiers)) != len(identifiers):
        raise MalformedPolicy("Statement IDs (SID) in a single policy must be unique.")
    return tuple(statements)


_ELEMENTS = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip


def _check_statement(statement: Any) -> None:
    if not isinstance(statement, dict) or not set(statement) <= _ELEMENTS:
        raise MalformedPolicy("Syntax errors in policy.")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicy("Syntax errors in policy.")
    for one, other, what in (
        ("Action", "NotAction", "actions"),
        ("Resource", "NotResource", "resources"),
        ("Principal", "NotPrincipal", "principals"),
    ):
        if one in statement and other in statement:
            raise MalformedPolicy("Syntax errors in policy.")
        for name in (one, other):
            if name in statement and what != "principals" and not _strings(statement[name]):
                raise MalformedPolicy("Syntax errors in policy.")
    if "Action" not in statement and "NotAction" not in statement:
        raise MalformedPolicy("Policy statement must contain actions.")
    for action in _listed(statement.get("Action", statement.get("NotAction"))):
        if action != "*" and not re.fullmatch(r"[\w*-]+:[\w*?-]+", action):
            raise MalformedPolicy("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
    condition = statement.get("Condition", {})
    if not isinstance(condition, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    for operator, keys in condition.items():
        if _operator(operator)[0] not in OPERATORS and _operator(operator)[0] != "Null":
            raise MalformedPolicy(f"Invalid Condition type : {operator}.")
        if not isinstance(keys, dict):
            raise MalformedPolicy("Syntax errors in policy.")


def check_identity_policy(text: str) -> tuple[Statement, ...]:
    """A policy for users, groups and roles: resources, no principals. Raises MalformedPolicy."""
    statements = parse(text)
    for statement in statements:
        if "Principal" in statement or "NotPrincipal" in statement:
            raise MalformedPolicy("Policy document should not specify a principal.")
        if "Resource" not in statement and "NotResource" not in statement:
            raise MalformedPolicy("Policy statement must contain resources.")
        for resource in _listed(statement.get("Resource", statement.get("NotResource"))):
            if resource != "*" and not resource.startswith("arn:") and not resource.startswith(("*", "${")):
                raise MalformedPolicy(f'Resource {resource} must be in ARN format or "*".')
    return statements


def check_trust_policy(text: str) -> tuple[Statement, ...]:
    """A role's trust policy: principals, STS actions, no resources. Raises MalformedPolicy."""
    statements = parse(text)
    for statement in statements:
        if "Resource" in statement or "NotResource" in statement:
            raise MalformedPolicy("Has prohibited field Resource")
        if "Principal" not in statement and "NotPrincipal" not in statement:
            raise MalformedPolicy("Missing required field Principal")
        for action in _listed(statement.get("Action", statement.get("NotAction"))):
            if action != "*" and not action.lower().startswith("sts:"):
                raise MalformedPolicy("AssumeRole policy may only specify STS AssumeRole actions.")
    return statements


def _strings(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


# -- matching ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4_096)
def _pattern(text: str, fold: bool) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(_UNMARKED.get(char, char)) for char in text)
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if fold else 0))


def like(pattern: str, text: str, fold: bool = False) -> bool:
    """`*` stands for any run of characters, `?` for one."""
    return pattern == text or _pattern(pattern, fold).fullmatch(text) is not None


def _expanded(text: str, request: Request, pattern: bool = True) -> str | None:
    """`text` with its policy variables filled in; None when one has no value and no default. In a pattern a wildcard
    that came out of a variable is marked, so that it stands for itself alone."""
    if "${" not in text:
        return text
    missing = False

    def value(found: re.Match[str]) -> str:
        nonlocal missing
        name, comma, default = found[1].partition(",")
        values = request.context.get(name.strip().lower())
        if name in ("*", "?", "$"):
            filled = name
        elif values:
            filled = values[0]
        elif comma:
            filled = default.strip().strip("'")
        else:
            missing = True
            filled = ""
        return "".join(_MARKED.get(char, char) for char in filled) if pattern else filled

    expanded = _VARIABLE.sub(value, text)
    return None if missing else expanded


def _matches_any(patterns: Any, text: str, request: Request, fold: bool = False) -> bool:
    for pattern in _listed(patterns):
        expanded = _expanded(pattern, request)
        if expanded is not None and like(expanded, text, fold):
            return True
    return False


def _matches_principal(given: Any, request: Request) -> bool:
    if given == "*":
        return True
    names = {request.principal, request.account, f"arn:aws:iam::{request.account}:root", *request.principals}
    for kind, values in given.items() if isinstance(given, dict) else ():
        for value in _listed(values):
            if value == "*" and kind == "AWS":
                return True
            if value in names:
                return True
    return False


def applies(statement: Statement, request: Request) -> bool:
    """Whether a statement speaks of this request: principal, action, resource and every condition."""
    if "Principal" in statement and not _matches_principal(statement["Principal"], request):
        return False
    if "NotPrincipal" in statement and _matches_principal(statement["NotPrincipal"], request):
        return False
    if "Action" in statement:
        if not any(like(pattern, request.action, True) for pattern in _listed(statement["Action"])):
            return False
    elif any(like(pattern, request.action, True) for pattern in _listed(statement.get("NotAction"))):
        return False
    if "Resource" in statement:
        if not _matches_any(statement["Resource"], request.resource, request):
            return False
    elif "NotResource" in statement and _matches_any(statement["NotResource"], request.resource, request):
        return False
    return all(
        _holds(operator, key, _listed(values), request)
        for operator, keys in statement.get("Condition", {}).items()
        for key, values in keys.items()
    )


# -- conditions -------------------------------------------------------------------------------------------------------


def _number(text: str) -> float:
    return float(text)


def _moment(text: str) -> float:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _ordered(convert: Callable[[str], float], compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def holds(wanted: str, actual: str) -> bool:
        try:
            return compare(convert(actual), convert(wanted))
        except ValueError:
            return False

    return holds


def _in_network(wanted: str, actual: str) -> bool:
    try:
        return ipaddress.ip_address(actual) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return False


def _arn_like(wanted: str, actual: str) -> bool:
    """Each of the six parts by itself; the last may contain colons."""
    patterns, parts = wanted.split(":", 5), actual.split(":", 5)
    if len(patterns) != 6 or len(parts) != 6:
        return wanted == "*"
    return all(like(pattern, part) for pattern, part in zip(patterns, parts))


def _comparisons(name: str, convert: Callable[[str], float]) -> dict[str, tuple[Callable[[str, str], bool], bool]]:
    return {
        f"{name}Equals": (_ordered(convert, lambda a, b: a == b), False),
        f"{name}NotEquals": (_ordered(convert, lambda a, b: a == b), True),
        f"{name}LessThan": (_ordered(convert, lambda a, b: a < b), False),
        f"{name}LessThanEquals": (_ordered(convert, lambda a, b: a <= b), False),
        f"{name}GreaterThan": (_ordered(convert, lambda a, b: a > b), False),
        f"{name}GreaterThanEquals": (_ordered(convert, lambda a, b: a >= b), False),
    }


def _equal(wanted: str, actual: str) -> bool:
    return wanted == actual


def _equal_folded(wanted: str, actual: str) -> bool:
    return wanted.casefold() == actual.casefold()


OPERATORS: dict[str, tuple[Callable[[str, str], bool], bool]] = {
    "StringEquals": (_equal, False),
    "StringNotEquals": (_equal, True),
    "StringEqualsIgnoreCase": (_equal_folded, False),
    "StringNotEqualsIgnoreCase": (_equal_folded, True),
    "StringLike": (like, False),
    "StringNotLike": (like, True),
    **_comparisons("Numeric", _number),
    **_comparisons("Date", _moment),
    "Bool": (_equal_folded, False),
    "BinaryEquals": (_equal, False),
    "IpAddress": (_in_network, False),
    "NotIpAddress": (_in_network, True),
    "ArnEquals": (_arn_like, False),
    "ArnNotEquals": (_arn_like, True),
    "ArnLike": (_arn_like, False),
    "ArnNotLike": (_arn_like, True),
}
"""Operator -> (test of a wanted against an actual value, whether the operator is its negation)."""


def _operator(name: str) -> tuple[str, str, bool]:
    """(operator, "ForAllValues", "ForAnyValue" or "", IfExists)."""
    quantifier, colon, rest = name.partition(":")
    if not colon or quantifier not in ("ForAllValues", "ForAnyValue"):
        quantifier, rest = "", name
    return rest.removesuffix("IfExists"), quantifier, rest.endswith("IfExists")


def _holds(name: str, key: str, wanted: list[Any], request: Request) -> bool:
    operator, quantifier, if_exists = _operator(name)
    actual = request.context.get(key.lower())
    if operator == "Null":
        return any((str(value).lower() == "true") == (not actual) for value in wanted)
    test, negated = OPERATORS[operator]
    if not actual:
        if quantifier:
            return quantifier == "ForAllValues" or if_exists
        return if_exists or negated
    filled = (_expanded(_text(value), request, test in (like, _arn_like)) for value in wanted)
    expected = [text for text in filled if text is not None]

    def one(value: str) -> bool:
        return any(test(text, value) for text in expected) != negated

    if quantifier == "ForAllValues":
        return all(one(value) for value in actual)
    if quantifier == "ForAnyValue" or not negated:
        return any(one(value) for value in actual)
    return all(one(value) for value in actual)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# -- the decision -----------------------------------------------------------------------------------------------------


def effect(documents: Iterable[str], request: Request) -> Effect:
    """What these documents together say of a request."""
    allowed = False
    for text in documents:
        for statement in parse(text):
            if applies(statement, request):
                if statement["Effect"] == "Deny":
                    return "deny"
                allowed = True
    return "allow" if allowed else "implicit"


def evaluate(
    request: Request,
    *,
    identity: Sequence[str] = (),
    resource: Sequence[str] = (),
    boundary: Sequence[str] | None = None,
    session: Sequence[str] | None = None,
    resource_account: str | None = None,
) -> Decision:
    """Identity-based and resource-based policies, bounded by a permissions boundary and a session policy (None: there
    is none). Within one account an allow of either kind is enough; across accounts both must allow. A resource policy
    that names the session or user itself is not limited by an implicit deny of the boundary or the session policy."""
    bounds = [("permissions boundary", boundary), ("session", session)]
    by_identity, by_resource = effect(identity, request), effect(resource, request)
    if by_identity == "deny":
        return Decision(False, True, "identity-based")
    if by_resource == "deny":
        return Decision(False, True, "resource-based")
    limits = {name: effect(documents, request) for name, documents in bounds if documents is not None}
    for name, said in limits.items():
        if said == "deny":
            return Decision(False, True, name)
    cross_account = resource_account is not None and resource_account != request.account
    if cross_account:
        if by_resource != "allow":
            return Decision(False, False, "resource-based")
    elif by_resource == "allow" and _names_caller(resource, request):
        return Decision(True, True, "resource-based")
    for name, said in limits.items():
        if said != "allow":
            return Decision(False, False, name)
    if by_identity == "allow" or (by_resource == "allow" and not cross_account):
        return Decision(True, True, "identity-based" if by_identity == "allow" else "resource-based")
    return Decision(False, False, "identity-based")


def _names_caller(documents: Sequence[str], request: Request) -> bool:
    """Whether an allowing statement names this very user or session, not its role or account."""
    for text in documents:
        for statement in parse(text):
            if statement["Effect"] != "Allow" or not applies(statement, request):
                continue
            principal = statement.get("Principal")
            if isinstance(principal, dict) and request.principal in _listed(principal.get("AWS")):
                return True
    return False
