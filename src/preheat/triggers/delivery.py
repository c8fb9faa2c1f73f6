"""Carries deliveries (`services/deliveries.py`) out: once per claim, in a transaction of the delivery's own.

An attempt that fails leaves nothing behind. A throttle, a conflict (a function that is being made), a fault of the
target (5xx) or a broken connection is tried again as the delivery's ladder says; any other error is final. What is
given up goes to its dead letter queue, as a delivery of its own, and is counted.
"""

from functools import partial

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Deferred, Outcome, Wait
from preheat.services.deliveries import Attributes, Counts, Delivery, emit
from preheat.services.sns import status
from preheat.triggers import dead_letters
from preheat.triggers.contract import Notice, OnNotice
from preheat.triggers.outbox import Event
from preheat.triggers.targets import permission
from preheat.triggers.targets.contract import acting, answered
from preheat.triggers.targets.table import TARGETS

TOO_OFTEN = "MaximumRetryAttempts"
TOO_OLD = "MaximumEventAgeInSeconds"
_RETRIED = frozenset({408, 409, 429})
_THROTTLED = frozenset({"ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown", "OverLimit"})


class Deliver:
    """The handler of deliveries."""

    def __init__(self, background: Background, on_notice: OnNotice) -> None:
        self._background = background
        self._on_notice = on_notice

    def __call__(self, ctx: Context, event: Event) -> Outcome:
        delivery = msgspec.json.decode(event.payload, type=Delivery)
        kind = delivery.target.partition(":")[0]
        if kind == "arn":
            kind = delivery.target.split(":", 3)[2]
        send = TARGETS.get(kind)
        if send is None or (delivery.target.startswith("arn:") and delivery.target.count(":") < 5):
            raise AwsError("InvalidTarget", f"Preheat does not deliver to {delivery.target}.")
        permission.check_role(ctx, delivery)
        return self._end(ctx, event, delivery, send(acting(ctx, delivery), delivery, self._background))

    def _end(self, ctx: Context, event: Event, delivery: Delivery, outcome: Outcome) -> Outcome:
        """Settle once the target has answered, now or in a later transaction."""
        if isinstance(outcome, Deferred):
            deferred = outcome

            def then(inner: Context, value: object) -> Outcome:
                return self._end(inner, event, delivery, deferred.then(acting(inner, delivery), value))

            return Deferred(deferred.start, then, deferred.cancelled)
        if isinstance(outcome, Wait):
            waiting = outcome

            def later(inner: Context) -> Outcome:
                return self._end(inner, event, delivery, waiting.again(acting(inner, delivery)))

            return Wait(waiting.topics, waiting.until, later)
        if delivery.counts is not None:
            count(ctx, delivery, delivery.counts, delivery.counts.delivered)
        if status.STATUS in delivery.options:
            _tell(ctx, delivery, event.attempts + 1, outcome)
        event.settle(ctx)
        return {}

    def failed(self, ctx: Context, event: Event, error: AwsError) -> Outcome:
        """After an attempt that was taken back: once more later, or no more."""
        delivery = msgspec.json.decode(event.payload, type=Delivery)
        if delivery.accepted_at is None:
            delivery = msgspec.structs.replace(delivery, accepted_at=event.claimed_at)
        if permanent(error):
            return self._give_up(ctx, event, delivery, error, "")
        pause = delivery.ladder.pause(event.attempts + 1, ctx.entropy.uniform())
        if pause is None:
            return self._give_up(ctx, event, delivery, error, TOO_OFTEN)
        if ctx.now + pause - (delivery.accepted_at or 0.0) > delivery.ladder.max_age_s:
            return self._give_up(ctx, event, delivery, error, TOO_OLD)
        if delivery.counts is not None:
            count(ctx, delivery, delivery.counts, delivery.counts.retried)
        event.retry(ctx, ctx.now + pause, msgspec.json.encode(delivery))
        return {}

    def _give_up(self, ctx: Context, event: Event, delivery: Delivery, error: AwsError, condition: str) -> Outcome:
        if delivery.counts is not None:
            count(ctx, delivery, delivery.counts, delivery.counts.failed)
        if delivery.dead_letter and delivery.dead_letter != delivery.target:
            emit(ctx, dead_letter(delivery, event.attempts, error, condition))
        if status.STATUS in delivery.options:
            told, words = delivery.options[status.STATUS], f"{error.code}: {error.message}"
            status.report(ctx, told, event.attempts + 1, _code(error), words, good=False)
        event.settle(ctx)
        sender = delivery.source_arn or delivery.source_service
        text = f"A delivery from {sender} to {delivery.target} was given up. {error.code}: {error.message}"
        ctx.db.after_commit(lambda: self._on_notice(Notice("delivery-failed", delivery.target, text)))
        return {}


def _tell(ctx: Context, delivery: Delivery, attempts: int, outcome: Outcome) -> None:
    """Write SNS's delivery status log of a success."""
    kind = delivery.target.split(":", 3)[2] if delivery.target.startswith("arn:") else "http"
    code, response = status.answer(kind, answered(outcome))
    status.report(ctx, delivery.options[status.STATUS], attempts, code, response, good=True)


def _code(error: AwsError) -> int:
    """The HTTP status that an endpoint answered, or that of the error."""
    number = error.code.removeprefix("HTTP_")
    return int(number) if number.isdigit() else error.status


def permanent(error: AwsError) -> bool:
    """Trying again cannot help: what is not there, not allowed, not understood, or not implemented."""
    if error.status == 501:
        return True
    return error.status < 500 and error.status not in _RETRIED and not throttled(error)


def throttled(error: AwsError) -> bool:
    return "Throttl" in error.code or "TooManyRequests" in error.code or error.code in _THROTTLED


def dead_letter(delivery: Delivery, retries: int, error: AwsError, condition: str) -> Delivery:
    """The delivery to the dead letter queue. `condition` is what was exhausted, "" for an error that is final.
    EventBridge writes there by the queue's policy, others as the role they act as."""
    attributes: Attributes | None = delivery.dead_letter_attributes
    if attributes is None:
        attributes = delivery.attributes
    if delivery.dead_letter_style == "events":
        told = dead_letters.failure(delivery, retries, error, condition, throttled(error))
        attributes = {**(attributes or {}), **told}
    counts = delivery.counts
    return Delivery(
        delivery.dead_letter or "",
        delivery.body if delivery.dead_letter_body is None else delivery.dead_letter_body,
        source_arn=delivery.source_arn,
        source_service=delivery.source_service,
        role="" if delivery.source_service == "events.amazonaws.com" else delivery.role,
        attributes=attributes,
        message_group_id=delivery.message_group_id,
        message_deduplication_id=delivery.message_deduplication_id,
        trace=delivery.trace,
        counts=None
        if counts is None
        else Counts(
            counts.namespace, counts.dimensions, delivered=counts.dead_lettered, failed=counts.dead_letter_failed
        ),
    )


def count(ctx: Context, delivery: Delivery, counts: Counts, name: str) -> None:
    """Count one, once the transaction has committed, where the sender is."""
    if not name:
        return
    scope = ctx.scope
    for text in (delivery.source_arn, delivery.target):
        parts = text.split(":")
        if len(parts) > 5 and parts[3] and parts[4]:
            scope = Scope(parts[4], parts[3])
            break
    record = ctx.machine.meter.record
    ctx.db.after_commit(partial(record, scope, counts.namespace, name, **counts.dimensions))
