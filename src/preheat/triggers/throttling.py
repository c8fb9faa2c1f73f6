"""The trap of throttled polls, put into words: reserved concurrency without MaximumConcurrency burns receives."""

from preheat.services.awslambda.advice import concurrency_settings
from preheat.services.awslambda.domain import parse_name
from preheat.services.findings import Finding
from preheat.triggers.contract import Batch

KIND = "esm-throttled"
THROTTLES = "EventSourceThrottles"


def throttle_finding(batch: Batch, reserved: int | None, reason: str, burned: int, lost: int) -> Finding:
    """`reserved` is the function's reserved concurrency, `reason` the executor's reason, `burned` how many messages
    came back with a receive used up, `lost` how many of them go to the dead-letter queue without having run."""
    mapping = batch.mapping
    name = parse_name(mapping.function_arn, mapping.scope).name
    limit = mapping.config.maximum_concurrency
    cause = "the account's concurrency"
    if reserved is not None or reason.startswith("Reserved"):
        cause = f"its ReservedConcurrentExecutions ({reserved})"
    return Finding(
        KIND, mapping.arn, "high", "Throttled polls use up the receives of valid messages",
        f"{name} throttled a batch from {mapping.source_arn}: {cause} is in use. The messages come back "
        "after the visibility timeout with one receive used up, so valid messages can end in the dead letter queue. "
        "Set ScalingConfig.MaximumConcurrency of this mapping to at most the function's ReservedConcurrentExecutions "
        f"(MaximumConcurrency is {limit if limit else f'not set: up to {mapping.config.ceiling:,} batches at once'}).",
        concurrency_settings(mapping, reserved),
        {"ReceivesUsedUpByThrottles": burned, "MessagesLostToDeadLetterQueue": lost},
    )  # fmt: skip
