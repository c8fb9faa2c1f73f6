"""The words that the tables of this package are written in.

A rule is a function `(ctx, params) -> [Need]`; most are made by `each`: the operation's own name is the action, and a
function of the parameters gives the resources.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from preheat.services.contract import Context, Params

Keys = dict[str, list[str]]


class Need(NamedTuple):
    """One action on one resource; `context` has the condition keys of its own, in lower case."""

    action: str
    resource: str
    context: Keys


Rule = Callable[[Context, Params], list[Need]]
Resources = Callable[[Context, Params], Iterable[str]]


def on(action: str, resources: Resources, keys: Callable[[Params], Keys] = lambda params: {}) -> Rule:
    def rule(ctx: Context, params: Params) -> list[Need]:
        return [Need(action, resource, keys(params)) for resource in resources(ctx, params)]

    return rule


def each(prefix: str, resources: Resources, operations: str) -> dict[str, Rule]:
    """Operations whose action has their own name, on one kind of resource."""
    return {name: on(f"{prefix}:{name}", resources) for name in operations.split()}


def both(*rules: Rule) -> Rule:
    return lambda ctx, params: [need for rule in rules for need in rule(ctx, params)]


def when(member: str, rule: Rule) -> Rule:
    """`rule`, for requests that have the member."""
    return lambda ctx, params: rule(ctx, params) if params.get(member) else []


def anything(ctx: Context, params: Params) -> list[str]:
    return ["*"]


def arn_of(service: str, text: str) -> Resources:
    """One ARN in the caller's region and account; `{Member}` is filled in from the parameters."""
    return lambda ctx, params: [ctx.scope.arn(service, text.format_map(params) if "{" in text else text)]


def given(member: str) -> Resources:
    return lambda ctx, params: [params[member]]


def pass_role(member: str, service: str) -> Rule:
    """iam:PassRole on the role that a request hands to a service."""
    return when(member, on("iam:PassRole", given(member), lambda params: {"iam:passedtoservice": [service]}))
