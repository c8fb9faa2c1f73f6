"""SNS's operations on subscriptions."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Outcome, Params
from preheat.services.deliveries import Delivery, emit
from preheat.services.sns import policies
from preheat.services.sns.devices import DeviceRows
from preheat.services.sns.domain import (
    PAGE,
    PHONE,
    PROTOCOLS,
    SEPARATED,
    SERVICE,
    TOKEN_LENGTH,
    TOKEN_LIFE_MS,
    Subscription,
    Topic,
    invalid,
    not_authorized,
    not_found,
    page_token,
    read_number,
    subscription_uid,
)
from preheat.services.sns.envelopes import Envelopes, web_headers
from preheat.services.sns.fanout import MAILER, web_address
from preheat.services.sns.filters import ATTRIBUTES, BODY, compile_filter, read_json
from preheat.services.sns.repository import SnsRepository
from preheat.services.sns.topics import TopicOperations, check_room

ASKED = ("http", "https", "email", "email-json")
"""Protocols whose endpoints confirm for themselves."""
SETTABLE = ("DeliveryPolicy", "FilterPolicy", "FilterPolicyScope", "RawMessageDelivery", "RedrivePolicy",
            "ReplayPolicy", "SubscriptionRoleArn")  # fmt: skip
EMPTIED = ("DeliveryPolicy", "FilterPolicy", "RedrivePolicy")
"""Attributes that an empty value takes away."""
MAX_FILTERED = 200
PENDING = "pending confirmation"
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\Z")
HEX = "0123456789abcdef"
TOKEN = re.compile(r"[0-9a-f]+\Z")
Check = Callable[[str, str, dict[str, str], Topic, str], None]


class SubscriptionOperations:
    def __init__(
        self, rows: SnsRepository, devices: DeviceRows, topics: TopicOperations, envelopes: Envelopes
    ) -> None:
        self._rows = rows
        self._devices = devices
        self._topics = topics
        self._envelopes = envelopes

    # -- life -----------------------------------------------------------------------------------------------------

    def subscribe(self, ctx: Context, params: Params) -> Outcome:
        protocol, endpoint = params["Protocol"], params.get("Endpoint")
        topic = self._topics.find(ctx, params["TopicArn"])
        if not endpoint:
            raise invalid("Endpoint Reason: Please specify an endpoint")
        check_endpoint(topic, protocol, endpoint)
        if protocol == "application":
            self._check_device(endpoint)
        attributes = dict(params.get("Attributes") or {})
        check_attributes(attributes, topic, endpoint, "Attributes Reason: ")
        known = self._rows.by_endpoint(topic, protocol, endpoint)
        if known is not None and known.state != "deleted":
            _compare(known, attributes)
            if known.state == "pending":
                self._ask(ctx, topic, known, ended=False)
            return {"SubscriptionArn": self._shown_arn(known, params)}
        attributes = {name: value for name, value in attributes.items() if value or name not in EMPTIED}
        check_room(topic, sum(self._rows.counts(topic).values()), protocol)
        self._check_filters(topic, attributes)
        waits = protocol in ASKED or (protocol == "sqs" and Arn.parse(endpoint).account != ctx.scope.account)
        token = ctx.entropy.token(TOKEN_LENGTH, HEX) if waits else None
        made = self._rows.subscribe(
            topic, ctx.entropy.uuid(), protocol, endpoint, ctx.principal, attributes, token, ctx.now_ms
        )
        if waits:
            self._ask(ctx, topic, made, ended=False)
        return {"SubscriptionArn": self._shown_arn(made, params)}

    def _check_device(self, endpoint: str) -> None:
        try:
            found = self._devices.by_arn(endpoint)
        except AwsError:
            raise invalid("ApplicationEndpoint ARN") from None
        if found is None:
            raise invalid(f"Endpoint Reason: Endpoint does not exist for endpoint arn{endpoint}")

    def _shown_arn(self, subscription: Subscription, params: Params) -> str:
        hidden = subscription.state == "pending" and not params.get("ReturnSubscriptionArn")
        return PENDING if hidden else subscription.arn

    def _check_filters(self, topic: Topic, attributes: dict[str, str]) -> None:
        if attributes.get("FilterPolicy") and self._rows.filtered(topic) >= MAX_FILTERED:
            raise AwsError(
                "FilterPolicyLimitExceeded", f"Topic has reached the limit of {MAX_FILTERED} filter policies", 403
            )

    def _ask(self, ctx: Context, topic: Topic, subscription: Subscription, *, ended: bool) -> None:
        """Send the endpoint what it has to visit to confirm, or to restore what has `ended`."""
        document = self._envelopes.confirmation(ctx, topic, subscription, ended=ended)
        protocol, body = subscription.protocol, msgspec.json.encode(document).decode()
        if protocol in ("email", "email-json"):
            subject = f"AWS Notification - {'Unsubscribe' if ended else 'Subscription'} Confirmation"
            text = body if protocol == "email-json" else f"{document['Message']}\n\n{document['SubscribeURL']}\n"
            self._rows.send(ctx.now_ms, protocol, MAILER, subscription.endpoint, subject, text, topic.arn)
        elif protocol == "sqs":
            emit(ctx, Delivery(subscription.endpoint, body, topic.arn, SERVICE, ladder=policies.MANAGED))
        else:
            policy = policies.effective_policy(topic.attributes.get("DeliveryPolicy"), None)
            url, login = web_address(subscription.endpoint)
            headers = web_headers(
                document["Type"], document["MessageId"], topic, subscription, policies.CONTENT_TYPE
            )
            ladder = policies.http_ladder(policy)
            emit(ctx, Delivery(url, body, topic.arn, SERVICE, options={"headers": headers | login}, ladder=ladder))

    def confirm_subscription(self, ctx: Context, params: Params) -> Outcome:
        """The token alone says which subscription it is; the ARN has to lead to its region (recorded 2023)."""
        token, arn = params["Token"], params["TopicArn"].split(":")
        if len(arn) < 6:
            raise invalid("Topic")
        if not TOKEN.match(token):
            raise AwsError("InvalidParameter", "Invalid token")
        found = self._rows.by_token(token, ctx.now_ms)
        if found is None:
            raise invalid("Token")
        if arn[:5] != found.topic_arn.split(":")[:5]:
            raise invalid("Topic")
        signed = ctx.principal.kind != "anonymous"
        if found.state != "confirmed":
            guarded = str(params.get("AuthenticateOnUnsubscribe", "")).lower() == "true" and signed
            self._rows.set_state(found, "confirmed", authenticated=signed, guarded=guarded)
        return {"SubscriptionArn": found.arn}

    def unsubscribe(self, ctx: Context, params: Params) -> Outcome:
        found = self._rows.subscription(subscription_uid(params["SubscriptionArn"]))
        if found is None:
            return {}
        topic = self._rows.topic_of(found)
        caller = ctx.principal
        if found.guarded and caller.kind == "anonymous":
            raise not_authorized("SNS:Unsubscribe")
        if caller.kind != "anonymous" and caller.account not in (found.owner, topic.scope.account):
            raise not_authorized("SNS:Unsubscribe")
        owner = caller.kind != "anonymous" and caller.account == found.owner
        if found.protocol in ASKED and found.state == "confirmed" and not owner:
            token = ctx.entropy.token(TOKEN_LENGTH, HEX)
            self._rows.set_state(found, "deleted", token=token, expires_at=ctx.now_ms + TOKEN_LIFE_MS)
            restored = self._rows.by_token(token, ctx.now_ms)
            assert restored is not None
            self._ask(ctx, topic, restored, ended=True)
        else:
            self._rows.delete(found)
        return {}

    # -- attributes -----------------------------------------------------------------------------------------------

    def _find(self, ctx: Context, arn: str) -> Subscription:
        found = self._rows.subscription(subscription_uid(arn))
        if found is None or found.arn != arn:
            raise not_found("Subscription")
        return found

    def get_subscription_attributes(self, ctx: Context, params: Params) -> Outcome:
        found = self._find(ctx, params["SubscriptionArn"])
        values = {
            "SubscriptionArn": found.arn,
            "TopicArn": found.topic_arn,
            "Protocol": found.protocol,
            "Endpoint": shown_endpoint(found),
            "Owner": found.owner,
            "PendingConfirmation": "true" if found.state == "pending" else "false",
            "ConfirmationWasAuthenticated": "true" if found.authenticated else "false",
            "SubscriptionPrincipal": found.principal,
            "RawMessageDelivery": "false",
            **found.attributes,
        }
        if "FilterPolicy" not in found.attributes:
            values.pop("FilterPolicyScope", None)
        else:
            values.setdefault("FilterPolicyScope", ATTRIBUTES)
        own = found.attributes.get("DeliveryPolicy")
        if own is not None:
            values["DeliveryPolicy"] = msgspec.json.encode(policies.shown_subscription_policy(own)).decode()
        if found.protocol in ("http", "https"):
            topic = self._rows.topic_of(found)
            effective = policies.effective_policy(topic.attributes.get("DeliveryPolicy"), own)
            values["EffectiveDeliveryPolicy"] = msgspec.json.encode(effective).decode()
        return {"Attributes": values}

    def set_subscription_attributes(self, ctx: Context, params: Params) -> Outcome:
        name, value = params["AttributeName"], params.get("AttributeValue") or ""
        if name not in SETTABLE:
            raise invalid("AttributeName")
        found = self._find(ctx, params["SubscriptionArn"])
        topic = self._rows.topic_of(found)
        changed = {**found.attributes, name: value}
        if (value == "" and name in EMPTIED) or (name == "FilterPolicy" and value.strip() == "{}"):
            del changed[name]
        else:
            check_attributes(changed, topic, found.endpoint, "", only=name)
        if "FilterPolicy" in changed and "FilterPolicy" not in found.attributes:
            self._check_filters(topic, changed)
        self._rows.set_attributes(found, changed)
        return {}

    # -- lists ----------------------------------------------------------------------------------------------------

    def list_subscriptions(self, ctx: Context, params: Params) -> Outcome:
        return _page(self._rows.listed(ctx.scope, read_number(params), PAGE + 1))

    def list_subscriptions_by_topic(self, ctx: Context, params: Params) -> Outcome:
        topic = self._topics.find(ctx, params["TopicArn"])
        return _page(self._rows.listed_by_topic(topic, read_number(params), PAGE + 1))


def _page(found: list[Subscription]) -> Params:
    shown = [
        {
            "SubscriptionArn": "PendingConfirmation" if one.state == "pending" else one.arn,
            "Owner": one.owner,
            "Protocol": one.protocol,
            "Endpoint": shown_endpoint(one),
            "TopicArn": one.topic_arn,
        }
        for one in found[:PAGE]
    ]
    output: Params = {"Subscriptions": shown}
    if len(found) > PAGE:
        output["NextToken"] = page_token(str(found[PAGE - 1].id))
    return output


def shown_endpoint(subscription: Subscription) -> str:
    """The endpoint with the password in it hidden."""
    return re.sub(r"(?<=//)([^/@:]*):[^/@]*@", r"\1:****@", subscription.endpoint)


# -- checks -----------------------------------------------------------------------------------------------------------


def check_endpoint(topic: Topic, protocol: str, endpoint: str) -> None:
    """Raises InvalidParameter."""
    if protocol not in PROTOCOLS:
        raise invalid(f"Amazon SNS does not support this protocol string: {protocol}")
    if protocol == "firehose":
        raise invalid(f"Protocol Reason: Preheat does not implement the protocol {protocol}")
    if topic.fifo and protocol != "sqs":
        raise invalid("Invalid parameter: Endpoint Reason: Please use FIFO SQS queue")
    if protocol in ("http", "https"):
        if not endpoint.startswith(f"{protocol}://"):
            raise invalid("Endpoint must match the specified protocol")
        try:
            parts = urlsplit(endpoint)
            usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable or not endpoint.isprintable() or " " in endpoint:
            raise invalid("Endpoint")
    elif protocol == "sms" and not PHONE.match(SEPARATED.sub("", endpoint)):
        raise AwsError("InvalidParameter", f"Invalid SMS endpoint: {endpoint}")
    elif protocol in ("email", "email-json") and not EMAIL.match(endpoint):
        raise invalid("Email address")
    elif protocol in ("sqs", "lambda"):
        _check_target(topic, protocol, endpoint)


def _check_target(topic: Topic, protocol: str, endpoint: str) -> None:
    try:
        arn = Arn.parse(endpoint)
    except ValueError:
        arn = None
    name = {"sqs": "SQS", "lambda": "Lambda"}[protocol]
    if arn is None or arn.service != protocol or not arn.region or not re.fullmatch(r"\d{12}", arn.account):
        raise invalid(f"{name} endpoint ARN")
    if protocol == "lambda" and not arn.resource.startswith("function:"):
        raise invalid("Lambda endpoint ARN")
    if endpoint.endswith(".fifo") and not topic.fifo:
        raise invalid(
            "Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics"
        )


def check_attributes(
    attributes: dict[str, str], topic: Topic, endpoint: str, prefix: str, only: str | None = None
) -> None:
    """A subscription's attributes, made canonical in place. `only`: the one that changes. Raises InvalidParameter."""
    for name, value in list(attributes.items()):
        check = _CHECKS.get(name)
        if check is None:
            raise invalid(f"{prefix}AttributeName")
        if only in (None, name):
            check(value, endpoint, attributes, topic, prefix)
    scope = attributes.get("FilterPolicyScope", ATTRIBUTES)
    compile_filter(attributes.get("FilterPolicy"), scope, prefix)
    if attributes.get("DeliveryPolicy"):
        policies.check_subscription_policy(
            attributes["DeliveryPolicy"], prefix, attributes.get("RawMessageDelivery") == "true"
        )


def _check_scope(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    if value not in (ATTRIBUTES, BODY):
        raise invalid(
            f"{prefix}FilterPolicyScope: Invalid value [{value}]. Please use either MessageBody or MessageAttributes"
        )


def _check_raw(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    if value.lower() not in ("true", "false"):
        raise invalid(f"{prefix}RawMessageDelivery: Invalid value [{value}]. Must be true or false.")
    if value.lower() == "true" and not endpoint.startswith(("http://", "https://", "arn:aws:sqs:")):
        raise invalid(f"{prefix}RawMessageDelivery: Delivery protocol does not support raw message delivery.")
    attributes["RawMessageDelivery"] = value.lower()


def _check_redrive(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    document = read_json(value, f"{prefix}RedrivePolicy")
    target = document.get("deadLetterTargetArn")
    try:
        arn = Arn.parse(target if isinstance(target, str) else "")
    except ValueError:
        arn = None
    if arn is None or arn.service != "sqs":
        raise invalid(f"{prefix}RedrivePolicy: deadLetterTargetArn is an invalid arn")
    if arn.scope != topic.scope:
        raise invalid(f"{prefix}RedrivePolicy: the dead-letter queue must be in the account and region of the topic")
    if endpoint.endswith(".fifo") != arn.resource.endswith(".fifo"):
        raise invalid(
            f"{prefix}RedrivePolicy: must use a FIFO queue as DLQ for a FIFO Subscription to a FIFO Topic."
            if endpoint.endswith(".fifo")
            else f"{prefix}RedrivePolicy: must use a standard queue as DLQ for a subscription that is not FIFO."
        )


def _refuse_replay(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    raise invalid(f"{prefix}ReplayPolicy: Preheat does not archive messages")


def _refuse_role(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    raise invalid(f"{prefix}SubscriptionRoleArn: only firehose subscriptions have a role")


def _checked_together(value: str, endpoint: str, attributes: dict[str, str], topic: Topic, prefix: str) -> None:
    """Its meaning depends on another attribute; see `check_attributes`."""


_CHECKS: dict[str, Any] = {
    "DeliveryPolicy": _checked_together,
    "FilterPolicy": _checked_together,
    "FilterPolicyScope": _check_scope,
    "RawMessageDelivery": _check_raw,
    "RedrivePolicy": _check_redrive,
    "ReplayPolicy": _refuse_replay,
    "SubscriptionRoleArn": _refuse_role,
}


def _compare(known: Subscription, attributes: dict[str, str]) -> None:
    """What is subscribed again must be given as it is."""
    defaults = {"RawMessageDelivery": "false", "FilterPolicyScope": ATTRIBUTES}
    for name, value in attributes.items():
        if known.attributes.get(name, defaults.get(name, "")) != value:
            raise invalid("Attributes Reason: Subscription already exists with different attributes")
