"""The documents that SNS sends: notifications, confirmations, Lambda events, mails. Signed where AWS signs them."""

from typing import Any

import msgspec

from preheat.services.contract import Context
from preheat.services.sns.domain import Subscription, Topic
from preheat.services.sns.messages import Message, instant, notification, shown_attributes
from preheat.services.sns.signing import CERTIFICATE_PATH, Signer

LAMBDA_SIGNATURE_VERSION = "1"
"""What AWS tells functions even when the signature is one of version 2 (recorded 2024)."""
AGENT = "Amazon Simple Notification Service Agent"
CONFIRM = (
    "You have chosen to subscribe to the topic {arn}.\nTo confirm the subscription, visit the SubscribeURL included in "
    "this message."
)
DEACTIVATED = (
    "You have chosen to deactivate subscription {arn}.\nTo cancel this operation and restore the subscription, visit "
    "the SubscribeURL included in this message."
)


class Envelopes:
    """`endpoint` is this server's, where links and the certificate lead."""

    def __init__(self, endpoint: str, signer: Signer) -> None:
        self._endpoint = endpoint
        self._signer = signer
        self._certificate_url = endpoint + CERTIFICATE_PATH

    def subscribe_url(self, topic_arn: str, token: str) -> str:
        return f"{self._endpoint}/?Action=ConfirmSubscription&TopicArn={topic_arn}&Token={token}"

    def unsubscribe_url(self, subscription: Subscription) -> str:
        return f"{self._endpoint}/?Action=Unsubscribe&SubscriptionArn={subscription.arn}"

    def notification(self, ctx: Context, message: Message, subscription: Subscription) -> str:
        """The JSON that queues, http(s) endpoints and email-json get. FIFO topics do not sign."""
        head, tail = self.halves(ctx, message, subscription.protocol)
        return f"{head}{self.own(subscription)}{tail}"

    def own(self, subscription: Subscription) -> str:
        """What in a notification is the subscription's alone; it stands between the `halves`."""
        return f',"UnsubscribeURL":"{self.unsubscribe_url(subscription)}"'

    def halves(self, ctx: Context, message: Message, protocol: str) -> tuple[str, str]:
        """The notification's JSON before and after what is a subscription's own."""
        text = message.text(protocol)
        known = message.memory.get(("envelope", text))
        if known is None:
            document = notification(message, protocol)
            if not message.topic.fifo:
                document |= self._signature(ctx, message, document)
            tail = "}"
            if message.attributes:
                tail = ',"MessageAttributes":' + _json(shown_attributes(message.attributes)) + "}"
            known = message.memory["envelope", text] = (_json(document)[:-1], tail)
        return known

    def _signature(self, ctx: Context, message: Message, document: dict[str, Any]) -> dict[str, str]:
        version = message.topic.signature_version
        signature = message.memory.get(("signature", document["Message"]))
        if signature is None:
            signature = self._signer.sign(ctx, document, version)
            message.memory["signature", document["Message"]] = signature
        return {
            "SignatureVersion": version,
            "Signature": signature,
            "SigningCertURL": self._certificate_url,
        }

    def lambda_event(self, ctx: Context, message: Message, subscription: Subscription) -> str:
        document = notification(message, subscription.protocol)
        signed = self._signature(ctx, message, document)
        body = {
            "Type": "Notification",
            "MessageId": message.id,
            "TopicArn": message.topic.arn,
            "Subject": message.subject,
            "Message": document["Message"],
            "Timestamp": message.timestamp,
            "SignatureVersion": LAMBDA_SIGNATURE_VERSION,
            "Signature": signed["Signature"],
            "SigningCertUrl": signed["SigningCertURL"],
            "UnsubscribeUrl": self.unsubscribe_url(subscription),
            "MessageAttributes": shown_attributes(message.attributes),
        }
        record = {
            "EventSource": "aws:sns",
            "EventVersion": "1.0",
            "EventSubscriptionArn": subscription.arn,
            "Sns": body,
        }
        return _json({"Records": [record]})

    def confirmation(self, ctx: Context, topic: Topic, subscription: Subscription, *, ended: bool) -> dict[str, Any]:
        """A SubscriptionConfirmation, or an UnsubscribeConfirmation when it has `ended`."""
        token = subscription.token or ""
        document: dict[str, Any] = {
            "Type": "UnsubscribeConfirmation" if ended else "SubscriptionConfirmation",
            "MessageId": ctx.entropy.uuid(),
            "Token": token,
            "TopicArn": topic.arn,
            "Message": DEACTIVATED.format(arn=subscription.arn) if ended else CONFIRM.format(arn=topic.arn),
            "SubscribeURL": self.subscribe_url(topic.arn, token),
            "Timestamp": instant(ctx.now),
        }
        document["SignatureVersion"] = topic.signature_version
        document["Signature"] = self._signer.sign(ctx, document, topic.signature_version)
        document["SigningCertURL"] = self._certificate_url
        return document

    def mail(self, message: Message, subscription: Subscription) -> str:
        """The text of an email."""
        url = self.unsubscribe_url(subscription)
        return (
            f"{message.text('email')}\n\n--\nTo stop receiving notifications from this topic, open this link to "
            f"unsubscribe:\n{url}\n"
        )


def web_headers(
    kind: str, message_id: str, topic: Topic, subscription: Subscription, content_type: str
) -> dict[str, str]:
    """The HTTP headers of what is posted to an endpoint; `kind` is the Type of the document."""
    headers = {
        "x-amz-sns-message-type": kind,
        "x-amz-sns-message-id": message_id,
        "x-amz-sns-topic-arn": topic.arn,
        "Content-Type": content_type,
        "User-Agent": AGENT,
        "Accept-Encoding": "gzip,deflate",
        "Connection": "Keep-Alive",
    }
    if kind != "SubscriptionConfirmation":
        headers["x-amz-sns-subscription-arn"] = subscription.arn
    return headers


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
