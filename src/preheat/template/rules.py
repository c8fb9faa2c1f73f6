"""The Rules section: assertions over parameters, checked before anything is made."""

from typing import Any

from preheat.template.intrinsics import Resolver
from preheat.template.parameters import text_of
from preheat.template.read import invalid, malformed

MEMBERS = frozenset(("RuleCondition", "Assertions"))
ASSERTION = frozenset(("Assert", "AssertDescription"))


def check_rules(resolver: Resolver) -> None:
    """Raises ValidationError with the descriptions of the assertions that do not hold, and for a malformed rule."""
    failed: list[str] = []
    for name, rule in (resolver.body.get("Rules") or {}).items():
        assertions = rule.get("Assertions") if isinstance(rule, dict) and set(rule) <= MEMBERS else None
        if not isinstance(assertions, list) or not assertions:
            raise malformed(f"Rule {name} must have Assertions, and may have a RuleCondition")
        applies = "RuleCondition" not in rule or _holds(rule["RuleCondition"], resolver, name)
        for assertion in assertions:
            if not isinstance(assertion, dict) or "Assert" not in assertion or not set(assertion) <= ASSERTION:
                raise malformed(f"Every assertion of rule {name} must contain an Assert member")
            if applies and not _holds(assertion["Assert"], resolver, name):
                failed.append(f"{name}: {assertion.get('AssertDescription') or 'an assertion does not hold'}")
    if failed:
        raise invalid(f"Template error: the parameters do not satisfy the rules of the template: {'; '.join(failed)}")


def _holds(value: Any, resolver: Resolver, rule: str) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise malformed(f"Rule {rule} must consist of rule functions")
    ((name, argument),) = value.items()
    if name in ("Fn::And", "Fn::Or"):
        results = [_holds(item, resolver, rule) for item in _arguments(name, argument, rule, 2, 10)]
        return all(results) if name == "Fn::And" else any(results)
    if name == "Fn::Not":
        return not _holds(_arguments(name, argument, rule, 1, 1)[0], resolver, rule)
    if name == "Fn::Equals":
        return resolver.resolve(value) is True
    if name not in ("Fn::Contains", "Fn::EachMemberIn", "Fn::EachMemberEquals"):
        raise invalid(f"Template error: Preheat does not implement {name} in rule {rule}")
    first, second = (resolver.resolve(item) for item in _arguments(name, argument, rule, 2, 2))
    members = _texts(first, name, rule)
    if name == "Fn::EachMemberIn":
        return set(members) <= set(_texts(second, name, rule))
    wanted = resolver.text(second, name)
    return wanted in members if name == "Fn::Contains" else all(member == wanted for member in members)


def _arguments(name: str, argument: Any, rule: str, least: int, most: int) -> list[Any]:
    if not isinstance(argument, list) or not least <= len(argument) <= most:
        raise malformed(f"{name} in rule {rule} has the wrong number of arguments")
    return argument


def _texts(value: Any, name: str, rule: str) -> list[str]:
    if not isinstance(value, list) or any(isinstance(item, (dict, list)) for item in value):
        raise malformed(f"{name} in rule {rule} needs a list of strings")
    return [text_of(item) for item in value]
