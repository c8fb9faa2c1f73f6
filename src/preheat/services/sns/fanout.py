"""From one message to the subscriptions of its topic, in the transaction that publishes it.

A queue of this server gets the message there and then; what it refuses, and every other endpoint, is a `Delivery` with
the retries of its kind. Mails and text messages go into the outbox.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.kernel.meter import MINUTE_S, Meter, Sample, Series
from preheat.kernel.scope import Arn, Scope
from preheat.services.contract import Context, Params, Principal
from preheat.services.deliveries import Counts, Delivery, emit, trace_header
from preheat.services.sns import policies, status
from preheat.services.sns.devices import DeviceRows
from preheat.services.sns.domain import SERVICE, Subscription, Topic
from preheat.services.sns.envelopes import Envelopes, web_headers
from preheat.services.sns.filters import ATTRIBUTES, Filter, Subject, compile_filter
from preheat.services.sns.messages import Message, carried_attributes
from preheat.services.sns.repository import SnsRepository

NAMESPACE = "AWS/SNS"
MAX_QUEUE_ATTRIBUTES = 10
MAIL_SUBJECT = "AWS Notification Message"
MAILER = "AWS Notifications"
SMS_PREFIX = 10
PRINCIPAL = Principal(SERVICE, "", "service", SERVICE)


@dataclass(frozen=True, slots=True)
class Route:
    """A confirmed subscription with everything of it that is the same for every message. `place` is the queue's account
    and region; `own` what only this subscription's notifications hold; `policy` the effective delivery policy of an
    http(s) endpoint."""

    subscription: Subscription
    filter: Filter | None
    dead_letter: str | None
    counts: Counts
    own: str
    raw: bool
    place: Scope | None = None
    queue_url: str = ""
    queue_name: str = ""
    fifo: bool = False
    policy: dict[str, Any] | None = None
    interval_ms: float = 0.0
    feedback: status.Feedback | None = None


@dataclass(slots=True)
class Routes:
    """A topic's routes. `alike` those to queues of this server that get every message as a body alone, raw ones and the
    others, with what the queues' service knows of them (`audiences`, when it is first asked); `rest` all others."""

    topic: Topic
    subscriptions: tuple[Subscription, ...]
    every: list[Route]
    alike: tuple[list[Route], list[Route]]
    rest: list[Route]
    audiences: list[Any] | None = None


class Tally:
    """What one message became, for its topic's metrics."""

    def __init__(self) -> None:
        self.delivered = 0
        self.filtered: dict[str, int] = {}


class FanOut:
    def __init__(self, rows: SnsRepository, devices: DeviceRows, envelopes: Envelopes) -> None:
        self._rows = rows
        self._devices = devices
        self._envelopes = envelopes
        self._routes: dict[int, Routes] = {}
        self._senders: dict[str, Callable[[Context, Route, Message], bool]] = {
            "sqs": self._to_queue,
            "lambda": self._to_function,
            "http": self._to_web,
            "https": self._to_web,
            "email": self._to_mail,
            "email-json": self._to_mail,
            "sms": self._to_phone,
            "application": self._to_device,
        }

    def __call__(self, ctx: Context, message: Message) -> None:
        """Deliver, and count."""
        topic, tally = message.topic, Tally()
        subject = Subject(message.attributes, message.texts["default"])
        routes = self._routes_of(topic)
        together = self._together(ctx, message)
        copied: list[Route] = []
        left = self._at_once(ctx, routes, message) if together else routes.every
        tally.delivered = len(routes.every) - len(left)
        for route in left:
            if route.filter is not None and (why := subject.refuses(route.filter)) is not None:
                tally.filtered[why] = tally.filtered.get(why, 0) + 1
            elif together and route.place is not None and _alike(route, message):
                copied.append(route)
            elif self._senders[route.subscription.protocol](ctx, route, message):
                tally.delivered += 1
        if copied:
            tally.delivered += self._copy(ctx, copied, message)
        ctx.db.after_commit(partial(_count, ctx.machine.meter, ctx.now, topic, message.size, tally))

    def _routes_of(self, topic: Topic) -> Routes:
        subscriptions = self._rows.confirmed(topic)
        known = self._routes.get(topic.id)
        if known is not None and known.topic is topic and known.subscriptions is subscriptions:
            return known
        own = self._envelopes.own
        every = [_route(topic, subscription, own(subscription)) for subscription in subscriptions]
        same = [route for route in every if route.place is not None and not route.filter and not route.feedback]
        alike = ([route for route in same if route.raw], [route for route in same if not route.raw])
        rest = [route for route in every if route.place is None or route.filter or route.feedback]
        routes = self._routes[topic.id] = Routes(topic, subscriptions, every, alike, rest)
        return routes

    def forget(self, topic: Topic) -> None:
        self._routes.pop(topic.id, None)

    # -- queues ---------------------------------------------------------------------------------------------------

    def _together(self, ctx: Context, message: Message) -> bool:
        """Whether queues of this server may get the message in one statement: as a body alone, nobody's leave asked."""
        return (
            message.group is None
            and ctx.machine.authorizer is None
            and "sqs" in ctx.machine.services
            and trace_header(ctx) is None
        )

    def _at_once(self, ctx: Context, routes: Routes, message: Message) -> list[Route]:
        """Put the message into all queues that get every message; the routes that are left."""
        queues: Any = ctx.machine.services["sqs"]
        raw, wrapped = routes.alike
        if routes.audiences is None:
            routes.audiences = [
                queues.copies.audience([(route.place, route.queue_name, "") for route in raw]),
                queues.copies.audience([(route.place, route.queue_name, route.own) for route in wrapped]),
            ]
        left = routes.rest
        to_raw, to_wrapped = routes.audiences
        if to_raw is None or message.attributes or not queues.copies.to_all(ctx, to_raw, SERVICE, message.text("sqs")):
            left = left + raw
        if to_wrapped is None or not queues.copies.to_all(
            ctx, to_wrapped, SERVICE, *self._envelopes.halves(ctx, message, "sqs")
        ):
            left = left + wrapped
        return left

    def _copy(self, ctx: Context, routes: list[Route], message: Message) -> int:
        """Put the message into the queues of these routes; how many took it. The others are served one by one."""
        queues: Any = ctx.machine.services["sqs"]
        others: list[Route] = []
        raw = [route for route in routes if route.raw]
        if raw:
            wanted = [(route.place, route.queue_name, "") for route in raw]
            taken = queues.copies(ctx, wanted, SERVICE, message.text("sqs"))
            others += [route for route, one in zip(raw, taken, strict=True) if not one]
        if len(raw) < len(routes):
            wrapped = [route for route in routes if not route.raw] if raw else routes
            head, tail = self._envelopes.halves(ctx, message, "sqs")
            wanted = [(route.place, route.queue_name, route.own + tail) for route in wrapped]
            taken = queues.copies(ctx, wanted, SERVICE, head)
            others += [route for route, one in zip(wrapped, taken, strict=True) if not one]
        return len(routes) - len(others) + sum(self._to_queue(ctx, route, message) for route in others)

    def _to_queue(self, ctx: Context, route: Route, message: Message) -> bool:
        subscription = route.subscription
        if subscription.raw:
            body = message.text("sqs")
            attributes = message.attributes
        else:
            body, attributes = self._envelopes.notification(ctx, message, subscription), {}
        params: Params = {"QueueUrl": route.queue_url, "MessageBody": body}
        if attributes:
            params["MessageAttributes"] = attributes
        if message.group is not None and message.topic.fifo == route.fifo:
            params["MessageGroupId"] = message.group
        if message.dedup is not None and route.fifo:
            params["MessageDeduplicationId"] = message.dedup
        if self._put(ctx, route, message, params):
            return True
        many = len(attributes) > MAX_QUEUE_ATTRIBUTES
        delivery = self._delivery(
            route, message, subscription.endpoint, body,
            attributes=carried_attributes(attributes) if attributes else None,
            message_group_id=params.get("MessageGroupId"),
            message_deduplication_id=params.get("MessageDeduplicationId"),
            dead_letter_attributes={} if many else None,
            ladder=policies.MANAGED,
        )  # fmt: skip
        self._emit(ctx, route, message, delivery)
        return False

    def _put(self, ctx: Context, route: Route, message: Message, params: Params) -> bool:
        """Send to a queue of this server at once. False leaves it to a delivery: its retries, its dead letter queue."""
        place = route.place
        queues: Any = ctx.machine.services.get("sqs")
        if place is None or queues is None:
            return False
        if ctx.machine.authorizer is not None and not _lets_in(queues, route, message.topic):
            return False
        trace = trace_header(ctx)
        if trace is not None:
            params["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        there = message.memory.get(place)
        if there is None:
            there = message.memory[place] = replace(ctx, scope=place, principal=PRINCIPAL, request=None)
        try:
            output = queues.operations["SendMessage"](there, params)
        except AwsError:
            return False
        told = status.wanted(ctx, route.feedback, message, route.subscription.endpoint)
        if told is not None:
            status.report(ctx, told, 1, *status.answer("sqs", output), good=True)
        return True

    # -- functions and web endpoints ------------------------------------------------------------------------------

    def _to_function(self, ctx: Context, route: Route, message: Message) -> bool:
        subscription = route.subscription
        event = self._envelopes.lambda_event(ctx, message, subscription)
        letter = self._envelopes.notification(ctx, message, subscription) if route.dead_letter else None
        self._emit(ctx, route, message, self._delivery(
            route, message, subscription.endpoint, event, dead_letter_body=letter, ladder=policies.MANAGED
        ))  # fmt: skip
        return False

    def _to_web(self, ctx: Context, route: Route, message: Message) -> bool:
        subscription, policy = route.subscription, route.policy or {}
        content_type = policy["requestPolicy"].get("headerContentType", policies.CONTENT_TYPE)
        headers = web_headers("Notification", message.id, message.topic, subscription, content_type)
        if subscription.raw:
            headers["x-amz-sns-rawdelivery"] = "true"
            body = message.text(subscription.protocol)
        else:
            body = self._envelopes.notification(ctx, message, subscription)
        url, login = web_address(subscription.endpoint)
        delivery = self._delivery(
            route, message, url, body, options={"headers": headers | login}, ladder=policies.http_ladder(policy)
        )
        due_at = None
        if route.interval_ms:
            due_at = self._rows.slot(subscription, ctx.now_ms, route.interval_ms) / 1_000
        self._emit(ctx, route, message, delivery, due_at)
        return False

    def _emit(
        self, ctx: Context, route: Route, message: Message, delivery: Delivery, due_at: float | None = None
    ) -> None:
        """Store a delivery, with what it is to report."""
        told = status.wanted(ctx, route.feedback, message, route.subscription.endpoint)
        if told is not None:
            delivery = msgspec.structs.replace(delivery, options={**delivery.options, status.STATUS: told})
        emit(ctx, delivery, due_at)

    def _delivery(self, route: Route, message: Message, target: str, body: str, **more: Any) -> Delivery:
        return Delivery(
            target, body, message.topic.arn, SERVICE, dead_letter=route.dead_letter, counts=route.counts, **more
        )

    # -- people ---------------------------------------------------------------------------------------------------

    def _to_mail(self, ctx: Context, route: Route, message: Message) -> bool:
        subscription, topic = route.subscription, message.topic
        if subscription.protocol == "email":
            body = self._envelopes.mail(message, subscription)
        else:
            body = self._envelopes.notification(ctx, message, subscription)
        sender = topic.attributes.get("DisplayName") or MAILER
        subject = message.subject or MAIL_SUBJECT
        self._rows.send(ctx.now_ms, subscription.protocol, sender, subscription.endpoint, subject, body, topic.arn)
        return True

    def _to_phone(self, ctx: Context, route: Route, message: Message) -> bool:
        topic = message.topic
        name = topic.attributes.get("DisplayName")
        text = f"{name[:SMS_PREFIX]}> {message.text('sms')}" if name else message.text("sms")
        sender = sms_sender(message.attributes, self._rows.sms_settings(topic.scope))
        self._rows.send(ctx.now_ms, "sms", sender, route.subscription.endpoint, "", text, topic.arn)
        return True

    def _to_device(self, ctx: Context, route: Route, message: Message) -> bool:
        """What a device does not take is a delivery that fails for good, for its dead letter queue and its metrics."""
        endpoint = route.subscription.endpoint
        device = self._devices.by_arn(endpoint)
        if device is None or not device.enabled or not device.application.enabled:
            body = self._envelopes.notification(ctx, message, route.subscription)
            self._emit(ctx, route, message, self._delivery(route, message, endpoint, body, ladder=policies.MANAGED))
            return False
        text, application = message.text(device.application.platform), device.application.name
        self._rows.send(
            ctx.now_ms, "application", application, endpoint, message.subject or "", text, message.topic.arn
        )
        return True


def sms_sender(attributes: dict[str, Any], settings: dict[str, str]) -> str:
    """Who a text message comes from: the message's own sender id, else the account's."""
    own = attributes.get("AWS.SNS.SMS.SenderID") or {}
    return own.get("StringValue") or settings.get("DefaultSenderID") or "NOTICE"


def web_address(endpoint: str) -> tuple[str, dict[str, str]]:
    """An endpoint's URL without the name and password in it, and the header that carries them."""
    parts = urlsplit(endpoint)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return endpoint, {}
    token = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {token}"}


def _route(topic: Topic, subscription: Subscription, own: str) -> Route:
    attributes = subscription.attributes
    redrive = attributes.get("RedrivePolicy")
    route = Route(
        subscription,
        compile_filter(attributes.get("FilterPolicy"), attributes.get("FilterPolicyScope", ATTRIBUTES)),
        msgspec.json.decode(redrive).get("deadLetterTargetArn") if redrive else None,
        Counts(
            NAMESPACE,
            {"TopicName": topic.name},
            delivered="NumberOfNotificationsDelivered",
            failed="NumberOfNotificationsFailed",
            dead_lettered="NumberOfNotificationsRedrivenToDlq",
            dead_letter_failed="NumberOfNotificationsFailedToRedriveToDlq",
        ),
        own,
        subscription.raw,
        feedback=status.feedback(topic, subscription.protocol),
    )
    if subscription.protocol == "sqs":
        arn = Arn.parse(subscription.endpoint)
        return replace(
            route, place=arn.scope, queue_url=f"/{arn.account}/{arn.resource}", queue_name=arn.resource,
            fifo=arn.resource.endswith(".fifo"),
        )  # fmt: skip
    if subscription.protocol in ("http", "https"):
        policy = policies.effective_policy(topic.attributes.get("DeliveryPolicy"), attributes.get("DeliveryPolicy"))
        rate = (policy["throttlePolicy"] or {}).get("maxReceivesPerSecond")
        return replace(route, policy=policy, interval_ms=1_000 / rate if rate else 0.0)
    return route


def _alike(route: Route, message: Message) -> bool:
    """Whether a queue gets no more than a body, and nobody is told about it."""
    return route.feedback is None and not (route.raw and message.attributes)


def _lets_in(queues: Any, route: Route, topic: Topic) -> bool:
    """Whether the queue's policy lets SNS in for this topic."""
    target = route.subscription.endpoint
    queue = queues.queue_by_arn(target)
    document = None if queue is None else queue.attributes.get("Policy")
    documents = [document] if document else []
    return grants.service_may(documents, SERVICE, "sqs:SendMessage", target, topic.arn, topic.scope.account)


def _count(meter: Meter, now: float, topic: Topic, size: int, tally: Tally) -> None:
    counts = {"NumberOfMessagesPublished": 1, "NumberOfNotificationsDelivered": tally.delivered}
    if tally.filtered:
        counts["NumberOfNotificationsFilteredOut"] = sum(tally.filtered.values())
        counts |= {f"NumberOfNotificationsFilteredOut{suffix}": times for suffix, times in tally.filtered.items()}
    meter.record(topic.scope, NAMESPACE, "PublishSize", size, "Bytes", TopicName=topic.name)
    minute = int(now) // MINUTE_S * MINUTE_S
    for name, times in counts.items():
        if times:
            sample = Sample()
            sample.add(1.0, times)
            meter.merge(Series(topic.scope, NAMESPACE, name, (("TopicName", topic.name),), "Count"), minute, sample)
