"""What a resource policy says of others than the caller: an AWS service acting for a resource, and everybody."""

from collections.abc import Iterable
from typing import Any

from preheat.identity import policy

NARROWING = {
    "aws:sourcearn", "aws:sourceaccount", "aws:sourceip", "aws:sourcevpc", "aws:sourcevpce", "aws:principalorgid",
    "aws:principalaccount", "aws:principalarn", "aws:userid",
}  # fmt: skip


def service_may(
    documents: Iterable[str], service: str, action: str, resource: str, source_arn: str, source_account: str
) -> bool:
    """Whether resource policies let an AWS service (`s3.amazonaws.com`) act on `resource` for `source_arn`."""
    context = {
        "aws:sourcearn": [source_arn],
        "aws:sourceaccount": [source_account],
        "aws:principalisawsservice": ["true"],
        "aws:principalservicename": [service],
    }
    request = policy.Request(action, resource, service, "", (), context)
    try:
        return policy.effect(documents, request) == "allow"
    except policy.MalformedPolicy:
        return False


def is_public(document: str) -> bool:
    """Whether a policy allows everybody, with no condition that says who or from where. A document that cannot be read
    counts as public."""
    try:
        return any(map(_allows_everybody, policy.parse(document)))
    except policy.MalformedPolicy:
        return True


def _allows_everybody(statement: policy.Statement) -> bool:
    if statement["Effect"] != "Allow":
        return False
    given: Any = statement.get("Principal")
    named = given.get("AWS") if isinstance(given, dict) else given
    everybody = "NotPrincipal" in statement or "*" in (named if isinstance(named, list) else [named])
    keys = {key.lower() for operator in statement.get("Condition", {}).values() for key in operator}
    return everybody and not keys & NARROWING
