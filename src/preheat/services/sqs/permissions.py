"""AddPermission and RemovePermission: statements of a queue's policy, each known by its label. Texts that are not in
aws_facts are assumed."""

import re
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.services.sqs.domain import Queue, invalid_value, missing

LABEL = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
ACCOUNT = re.compile(r"[0-9]{12}\Z")
MAX_ACTIONS = 7
ALLOWED = (
    "*", "SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes",
    "GetQueueUrl", "ListDeadLetterSourceQueues", "PurgeQueue",
)  # fmt: skip
OWNER_ONLY = (
    "AddPermission", "CancelMessageMoveTask", "CreateQueue", "DeleteQueue", "ListMessageMoveTasks", "ListQueues",
    "ListQueueTags", "RemovePermission", "SetQueueAttributes", "StartMessageMoveTask", "TagQueue", "UntagQueue",
)  # fmt: skip


def with_permission(queue: Queue, label: str, accounts: list[str], actions: list[str]) -> str:
    """The queue's policy with one statement more. Raises AwsError."""
    _check_label(label)
    _check_actions(actions)
    if not accounts or not all(map(ACCOUNT.match, accounts)):
        raise invalid_value(f"Value [{', '.join(accounts)}] for parameter PrincipalId is invalid. Reason: Unable to "
                            "verify.")  # fmt: skip
    document, statements = _policy(queue)
    if any(statement.get("Sid") == label for statement in statements):
        raise invalid_value(f"Value {label} for parameter Label is invalid. Reason: Already exists.")
    statements.append(
        {
            "Sid": label,
            "Effect": "Allow",
            "Principal": {"AWS": _one_or_many([f"arn:aws:iam::{account}:root" for account in accounts])},
            "Action": _one_or_many([f"SQS:{action}" for action in actions]),
            "Resource": queue.arn,
        }
    )
    document["Statement"] = statements
    return msgspec.json.encode(document).decode()


def without_permission(queue: Queue, label: str) -> str:
    """The queue's policy without the labelled statement; "" when it was the last. Raises AwsError."""
    document, statements = _policy(queue)
    kept = [statement for statement in statements if statement.get("Sid") != label]
    if len(kept) == len(statements):
        raise invalid_value(f"Value {label} for parameter Label is invalid. Reason: can't find label.")
    if not kept:
        return ""
    document["Statement"] = kept
    return msgspec.json.encode(document).decode()


def _check_label(label: str) -> None:
    if not LABEL.match(label):
        raise invalid_value(f"Value {label} for parameter Label is invalid. Reason: Can only include alphanumeric "
                            "characters, hyphens, or underscores. 1 to 80 in length.")  # fmt: skip


def _check_actions(actions: list[str]) -> None:
    if not actions:
        raise missing("Actions")
    if len(actions) > MAX_ACTIONS:
        raise AwsError("OverLimit", f"{len(actions)} Actions were found, maximum allowed is {MAX_ACTIONS}.", 403,
                       query_code="OverLimit")  # fmt: skip
    for action in actions:
        if action in OWNER_ONLY:
            raise invalid_value(f"Value SQS:{action} for parameter ActionName is invalid. Reason: Only the queue owner "
                                "is allowed to invoke this action.")  # fmt: skip
        if action not in ALLOWED:
            raise invalid_value(f"Value SQS:{action} for parameter ActionName is invalid. Reason: Please refer to the "
                                "appropriate WSDL for a list of valid actions.")  # fmt: skip


def _policy(queue: Queue) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    text = queue.attributes.get("Policy")
    if not text:
        return {"Version": "2008-10-17", "Id": f"{queue.arn}/SQSDefaultPolicy", "Statement": []}, []
    document = msgspec.json.decode(text)
    statements = document["Statement"]
    return document, [statements] if isinstance(statements, dict) else list(statements)


def _one_or_many(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
