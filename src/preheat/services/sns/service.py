"""Amazon SNS: the table of all operations, and what the platform asks of it besides."""

from pathlib import Path
from typing import Any

from preheat.identity.vault import Vault
from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Operation, Platform
from preheat.services.sns.devices import DeviceRows
from preheat.services.sns.envelopes import Envelopes
from preheat.services.sns.fanout import FanOut
from preheat.services.sns.messages import instant
from preheat.services.sns.phones import PhoneOperations
from preheat.services.sns.publishing import Publishing
from preheat.services.sns.push import PushOperations
from preheat.services.sns.repository import SnsRepository
from preheat.services.sns.signing import Signer
from preheat.services.sns.subscriptions import SubscriptionOperations
from preheat.services.sns.topics import TopicOperations

EXPIRED_PER_STEP = 1_000


class SnsService:
    name = "sns"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, platform: Platform) -> None:
        rows = self._rows = SnsRepository(platform.db)
        vault = Vault(platform.db.directory, platform.entropy)
        signer = self._signer = Signer(rows, vault, platform.entropy, platform.background)
        platform.db.on_undo.append(signer.forget)
        envelopes = Envelopes(platform.settings.endpoint, signer)
        devices = DeviceRows(platform.db)
        fan_out = FanOut(rows, devices, envelopes)
        topics = TopicOperations(rows, signer, fan_out.forget)
        subscriptions = SubscriptionOperations(rows, devices, topics, envelopes)
        publishing = Publishing(rows, devices, fan_out, topics.find)
        push = PushOperations(devices)
        phones = PhoneOperations(rows)
        self.loops = [Expiry(rows)]
        self.operations: dict[str, Operation] = {
            "CreateTopic": topics.create_topic,
            "DeleteTopic": topics.delete_topic,
            "ListTopics": topics.list_topics,
            "GetTopicAttributes": topics.get_topic_attributes,
            "SetTopicAttributes": topics.set_topic_attributes,
            "AddPermission": topics.add_permission,
            "RemovePermission": topics.remove_permission,
            "TagResource": topics.tag_resource,
            "UntagResource": topics.untag_resource,
            "ListTagsForResource": topics.list_tags_for_resource,
            "Subscribe": subscriptions.subscribe,
            "ConfirmSubscription": subscriptions.confirm_subscription,
            "Unsubscribe": subscriptions.unsubscribe,
            "GetSubscriptionAttributes": subscriptions.get_subscription_attributes,
            "SetSubscriptionAttributes": subscriptions.set_subscription_attributes,
            "ListSubscriptions": subscriptions.list_subscriptions,
            "ListSubscriptionsByTopic": subscriptions.list_subscriptions_by_topic,
            "Publish": publishing.publish,
            "PublishBatch": publishing.publish_batch,
            "GetSMSAttributes": phones.get_sms_attributes,
            "SetSMSAttributes": phones.set_sms_attributes,
            "CheckIfPhoneNumberIsOptedOut": phones.check_if_phone_number_is_opted_out,
            "ListPhoneNumbersOptedOut": phones.list_phone_numbers_opted_out,
            "OptInPhoneNumber": phones.opt_in_phone_number,
            "CreatePlatformApplication": push.create_platform_application,
            "GetPlatformApplicationAttributes": push.get_platform_application_attributes,
            "SetPlatformApplicationAttributes": push.set_platform_application_attributes,
            "DeletePlatformApplication": push.delete_platform_application,
            "ListPlatformApplications": push.list_platform_applications,
            "CreatePlatformEndpoint": push.create_platform_endpoint,
            "GetEndpointAttributes": push.get_endpoint_attributes,
            "SetEndpointAttributes": push.set_endpoint_attributes,
            "DeleteEndpoint": push.delete_endpoint,
            "ListEndpointsByPlatformApplication": push.list_endpoints_by_platform_application,
        }

    def certificate(self, ctx: Context) -> str:
        """The certificate of notifications' signatures, in PEM."""
        return self._signer.certificate(ctx)

    def outbox(self, limit: int = 1_000) -> list[dict[str, Any]]:
        """Mails, text messages and pushed notifications that were sent, newest first."""
        return [{**row, "at": instant(row["at"] / 1_000)} for row in self._rows.sent(limit)]

    def topic_policy(self, arn: str) -> str | None:
        """The policy of the topic with this ARN, None when there is no such topic."""
        parts = arn.split(":", 5)
        topic = self._rows.topic(Scope(parts[4], parts[3]), parts[5]) if len(parts) == 6 else None
        return None if topic is None else topic.policy


class Expiry:
    """Drops subscriptions that nobody confirmed, and deduplication ids past their window."""

    name = "sns expiry"
    topics = ("sns:expiry",)

    def __init__(self, rows: SnsRepository) -> None:
        self._rows = rows

    def step(self, ctx: Context) -> float | None:
        following = self._rows.expire(ctx.now_ms, EXPIRED_PER_STEP)
        return None if following is None else following / 1_000


def build(platform: Platform) -> SnsService:
    return SnsService(platform)
