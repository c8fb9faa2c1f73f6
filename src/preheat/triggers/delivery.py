"""Deliveries: a body on its way to a target, stored as an event of kind "deliver".

One table says which targets there are. A target that is gone ends the delivery at once; any other error is tried again
with growing pauses until the delivery is too old. What cannot be delivered goes to its dead letter queue if it has one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Outcome, Principal
from preheat.triggers.contract import Notice, OnNotice
from preheat.triggers.outbox import Event

KIND = "deliver"
DEFAULT_MAX_AGE_S = 6 * 3600.0
MAX_PAUSE_S = 300.0
_PERMANENT = (
    "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "ResourceNotFoundException",
    "InvalidParameterValueException", "InvalidParameterValue", "InvalidMessageContents", "RequestTooLargeException",
    "InvalidRequestContentException", "MissingRequiredParameterException", "ValidationException",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delivery:
    """The JSON of an event of kind "deliver". `target` is an ARN, `body` a text (JSON for Lambda), `attributes` are
    message attributes as (data type, value) by name. `accepted_at` is filled in by the first attempt; after
    `max_attempts` (None: no limit) or `max_age_s` seconds the delivery is given up."""

    target: str
    body: str
    source_arn: str = ""
    source_service: str = ""
    attributes: dict[str, tuple[str, str]] | None = None
    message_group_id: str | None = None
    dead_letter: str | None = None
    max_attempts: int | None = None
    max_age_s: float = DEFAULT_MAX_AGE_S
    accepted_at: float | None = None


Send = Callable[[Context, Delivery, Principal], None]


def emit(ctx: Context, delivery: Delivery) -> None:
    """Store a delivery; it leaves after the commit."""
    ctx.db.emit(KIND, msgspec.json.encode(delivery), ctx.now)


def _to_lambda(ctx: Context, delivery: Delivery, principal: Principal) -> None:
    request = {"FunctionName": delivery.target, "InvocationType": "Event", "Payload": delivery.body.encode()}
    ctx.call("lambda", "Invoke", request, principal)


def _to_sqs(ctx: Context, delivery: Delivery, principal: Principal) -> None:
    url = ctx.call("sqs", "GetQueueUrl", {"QueueName": Arn.parse(delivery.target).resource}, principal)["QueueUrl"]
    request = {"QueueUrl": url, "MessageBody": delivery.body}
    if delivery.attributes:
        request["MessageAttributes"] = {
            name: {"DataType": kind, "StringValue": value} for name, (kind, value) in delivery.attributes.items()
        }
    if delivery.message_group_id:
        request["MessageGroupId"] = delivery.message_group_id
    ctx.call("sqs", "SendMessage", request, principal)


TARGETS: dict[str, Send] = {"lambda": _to_lambda, "sqs": _to_sqs}
"""By the service in the target's ARN. A new kind of target is one function and one line here."""


class Deliver:
    """The handler of events of kind "deliver"."""

    def __init__(self, on_notice: OnNotice) -> None:
        self._on_notice = on_notice

    def __call__(self, ctx: Context, event: Event) -> Outcome:
        delivery = msgspec.json.decode(event.payload, type=Delivery)
        if delivery.accepted_at is None:
            delivery = replace(delivery, accepted_at=ctx.now)
        try:
            target = Arn.parse(delivery.target)
        except ValueError:
            return self._give_up(ctx, event, delivery, f"{delivery.target} is no ARN")
        send = TARGETS.get(target.service)
        if send is None:
            return self._give_up(ctx, event, delivery, f"Preheat does not deliver to {target.service}")
        service = delivery.source_service or "preheat"
        principal = Principal(service, target.account, "service", service)
        try:
            send(replace(ctx, scope=target.scope, principal=principal), delivery, principal)
        except AwsError as error:
            return self._failed(ctx, event, delivery, error)
        event.settle(ctx)
        return {}

    def _failed(self, ctx: Context, event: Event, delivery: Delivery, error: AwsError) -> Outcome:
        assert delivery.accepted_at is not None
        again_at = ctx.now + min(2.0**event.attempts, MAX_PAUSE_S)
        spent = delivery.max_attempts is not None and event.attempts + 1 >= delivery.max_attempts
        if error.code in _PERMANENT or spent or again_at - delivery.accepted_at > delivery.max_age_s:
            return self._give_up(ctx, event, delivery, f"{error.code}: {error.message}")
        event.retry(ctx, again_at, msgspec.json.encode(delivery))
        return {}

    def _give_up(self, ctx: Context, event: Event, delivery: Delivery, reason: str) -> Outcome:
        if delivery.dead_letter and delivery.dead_letter != delivery.target:
            emit(ctx, replace(delivery, target=delivery.dead_letter, dead_letter=None, accepted_at=None))
        event.settle(ctx)
        text = f"A delivery from {delivery.source_arn or delivery.source_service} was given up. {reason}"
        ctx.db.after_commit(lambda: self._on_notice(Notice("delivery-failed", delivery.target, text)))
        return {}
