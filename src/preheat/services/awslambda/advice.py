"""What is risky in an event source mapping's settings, found from the settings alone."""

import json
from dataclasses import replace

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services import findings
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import load
from preheat.services.awslambda.domain import Mapping, parse_name
from preheat.services.contract import Context
from preheat.services.findings import Finding

CONCURRENCY = "esm-reserved-concurrency"
VISIBILITY = "esm-visibility-timeout"
RECEIVES = "esm-receive-count"
KINDS = (CONCURRENCY, VISIBILITY, RECEIVES)
RECOMMENDED_TIMEOUTS = 6
RECOMMENDED_RECEIVES = 5


def advise(ctx: Context, mapping: Mapping) -> None:
    """Bring the findings about a mapping's settings up to date. What it refers to may be gone."""
    findings.settle(ctx.db, ctx.now, mapping.arn, KINDS, _found(ctx, mapping) if mapping.enabled else [])


def advise_function(ctx: Context, function_arn: str) -> None:
    """The same for every mapping to a function (unqualified ARN)."""
    for mapping in repository.mappings_of(ctx.db, ctx.scope, None, function_arn, "", 1_000):
        advise(ctx, mapping)


class AdviceLoop:
    """Brings the findings up to date when a queue of a mapping has changed, was made or is gone."""

    name = "lambda-advice"
    topics = ("sqs:queues",)

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, str] | None] = {}
        """What the findings last spoke of, by mapping: the queue's attributes, None without a queue."""

    def step(self, ctx: Context) -> None:
        seen: dict[str, dict[str, str] | None] = {}
        for mapping in repository.mappings(ctx.db):
            if not mapping.enabled or ":sqs:" not in mapping.source_arn:
                continue
            scoped = replace(ctx, scope=mapping.scope)
            seen[mapping.uuid] = attributes = _queue_attributes(scoped, mapping)
            if mapping.uuid not in self._seen or self._seen[mapping.uuid] != attributes:
                advise(scoped, mapping)
        self._seen = seen


def _queue_attributes(ctx: Context, mapping: Mapping) -> dict[str, str] | None:
    queue = Arn.parse(mapping.source_arn)
    try:
        url = ctx.call("sqs", "GetQueueUrl", {"QueueName": queue.resource})["QueueUrl"]
        wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout", "RedrivePolicy"]}
        return ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
    except AwsError:
        return None


def _found(ctx: Context, mapping: Mapping) -> list[Finding]:
    queue = Arn.parse(mapping.source_arn)
    if queue.service != "sqs":
        return []
    function = parse_name(mapping.function_arn, mapping.scope)
    try:
        timeout_s = load(ctx, function).settings.timeout_s
    except AwsError:
        return []
    attributes = _queue_attributes(ctx, mapping)
    if attributes is None:
        return []
    receives = max_receive_count(attributes.get("RedrivePolicy"))
    reserved = repository.reserved(ctx.db, function)
    together = sum(
        other.config.ceiling
        for other in repository.mappings_of(ctx.db, mapping.scope, None, function.arn, "", 1_000)
        if other.enabled
    )
    found = [
        _concurrency(mapping, function.name, reserved, together, receives),
        _visibility(mapping, function.name, timeout_s, int(attributes["VisibilityTimeout"])),
        _receives(mapping, queue.resource, receives),
    ]
    return [finding for finding in found if finding is not None]


def max_receive_count(policy: str | None) -> int | None:
    """maxReceiveCount of a RedrivePolicy's JSON, None without a dead-letter queue."""
    if not policy:
        return None
    return int(json.loads(policy)["maxReceiveCount"])


def concurrency_settings(mapping: Mapping, reserved: int | None) -> dict[str, int | None]:
    """The two settings of the trap, with their values."""
    return {
        "ReservedConcurrentExecutions": reserved,
        "ScalingConfig.MaximumConcurrency": mapping.config.maximum_concurrency,
    }


def _concurrency(
    mapping: Mapping, name: str, reserved: int | None, together: int, receives: int | None
) -> Finding | None:
    if reserved is None or together <= reserved:
        return None
    limit = mapping.config.maximum_concurrency
    dead = f" in the dead-letter queue after {receives} receives" if receives else " back in the queue again and again"
    return Finding(
        CONCURRENCY, mapping.arn, "high" if receives else "medium",
        "Throttled polls can use up the receives of valid messages",
        f"Event source mappings may run {together} batches of {name} at once, the function is held to "
        f"ReservedConcurrentExecutions = {reserved}. A batch that is throttled until its visibility timeout has used "
        f"up one receive, so valid messages can end{dead}. Set ScalingConfig.MaximumConcurrency of the mapping (now "
        f"{limit if limit else f'not set: {mapping.config.ceiling}'}) so that all mappings of the function together "
        f"stay within {reserved}, or raise ReservedConcurrentExecutions.",
        concurrency_settings(mapping, reserved),
    )  # fmt: skip


def _visibility(mapping: Mapping, name: str, timeout_s: int, visibility_s: int) -> Finding | None:
    window_s = mapping.config.window_s
    settings = {
        "VisibilityTimeout": visibility_s, "Timeout": timeout_s, "MaximumBatchingWindowInSeconds": window_s
    }  # fmt: skip
    if visibility_s < timeout_s:
        return Finding(
            VISIBILITY, mapping.arn, "high", "Messages become visible again while they are still processed",
            f"The queue's VisibilityTimeout ({visibility_s} s) is less than the Timeout of {name} ({timeout_s} s): a "
            "message can be processed twice at the same time.",
            settings,
        )  # fmt: skip
    wanted = RECOMMENDED_TIMEOUTS * timeout_s + window_s
    if visibility_s < wanted:
        return Finding(
            VISIBILITY, mapping.arn, "low", "The visibility timeout leaves little room for throttled batches",
            f"AWS recommends a VisibilityTimeout of six times the function's Timeout plus the batching window: "
            f"{wanted} s here, the queue has {visibility_s} s. A batch that is throttled meanwhile comes back earlier "
            "with one receive used up.",
            settings,
        )  # fmt: skip
    return None


def _receives(mapping: Mapping, queue: str, receives: int | None) -> Finding | None:
    if receives is None or receives >= RECOMMENDED_RECEIVES:
        return None
    return Finding(
        RECEIVES, mapping.arn, "low", "Few receives before the dead-letter queue",
        f"maxReceiveCount of {queue} is {receives}; AWS recommends at least {RECOMMENDED_RECEIVES}, so that a few "
        "throttles do not send a valid message to the dead-letter queue.",
        {"maxReceiveCount": receives},
    )  # fmt: skip
