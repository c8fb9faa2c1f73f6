"""SNS's Publish and PublishBatch."""

import hashlib
import re
from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.services.sns import messages
from preheat.services.sns.devices import DeviceRows, check_reachable
from preheat.services.sns.domain import DEFAULT_MAX_BYTES, PHONE, Topic, invalid
from preheat.services.sns.fanout import NAMESPACE, FanOut, sms_sender
from preheat.services.sns.messages import Message
from preheat.services.sns.repository import SnsRepository

MAX_ENTRIES = 10
MAX_SMS = 1_600
EXPIRY_EVERY = 256
"""Messages of a FIFO topic after which old deduplication ids are looked for."""
ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}\Z")
FindTopic = Callable[[Context, str, str], Topic]


class Publishing:
    """`find` resolves a topic's ARN (and the name of the member it came in)."""

    def __init__(self, rows: SnsRepository, devices: DeviceRows, fan_out: FanOut, find: FindTopic) -> None:
        self._rows = rows
        self._devices = devices
        self._fan_out = fan_out
        self._find = find

    def publish(self, ctx: Context, params: Params) -> Outcome:
        messages.check_text(params)
        messages.check_attributes(params.get("MessageAttributes") or {})
        phone = params.get("PhoneNumber")
        if phone is not None:
            return self._text(ctx, params, phone)
        member = "TopicArn" if "TopicArn" in params else "TargetArn"
        arn = params.get(member)
        if arn is None:
            raise invalid("TopicArn or TargetArn Reason: no value for required parameter")
        if ":endpoint/" in arn:
            return self._push(ctx, params, arn)
        topic = self._find(ctx, arn, member)
        messages.check_group(params, topic)
        size = messages.size_of(params)
        if size > topic.max_bytes:
            raise invalid("Message too long")
        return self._send(ctx, topic, params, messages.texts(params), size)

    def _send(self, ctx: Context, topic: Topic, params: Params, texts: dict[str, str], size: int) -> Params:
        message = Message(
            ctx.entropy.uuid(), topic, texts, messages.instant(ctx.now), params.get("Subject"),
            params.get("MessageAttributes") or {}, params.get("MessageGroupId"), size=size,
        )  # fmt: skip
        if topic.fifo and (known := self._duplicate(ctx, topic, params, message)) is not None:
            return known
        self._fan_out(ctx, message)
        output: Params = {"MessageId": message.id}
        if message.sequence is not None:
            output["SequenceNumber"] = message.sequence_number
        return output

    def _duplicate(self, ctx: Context, topic: Topic, params: Params, message: Message) -> Params | None:
        """The answer for a message that was published before; else it gets its place in the topic's order."""
        dedup = params.get("MessageDeduplicationId")
        if dedup is None:
            dedup = hashlib.sha256(params["Message"].encode()).hexdigest()
        per_group = topic.attributes.get("FifoThroughputScope") == "MessageGroup"
        scope = params["MessageGroupId"] if per_group else ""
        known = self._rows.duplicate(topic, scope, dedup, ctx.now_ms)
        if known is not None:
            return {"MessageId": known[0], "SequenceNumber": str(messages.SEQUENCE_BASE + known[1])}
        message.dedup, message.sequence = dedup, self._rows.next_sequence(topic)
        self._rows.remember(topic, scope, dedup, message.id, message.sequence, ctx.now_ms)
        if message.sequence % EXPIRY_EVERY == 1:
            ctx.db.notify("sns:expiry")
        return None

    def _text(self, ctx: Context, params: Params, phone: str) -> Params:
        """A text message to one number."""
        if params.get("TopicArn") or params.get("TargetArn"):
            raise invalid("PhoneNumber Reason: only one of TopicArn, TargetArn and PhoneNumber may be given")
        if not PHONE.match(phone):
            raise invalid(f"PhoneNumber Reason: {phone} is not valid to publish to")
        text = messages.texts(params)
        body = text.get("sms", text["default"])
        if len(body) > MAX_SMS:
            raise invalid("Message too long")
        settings = self._rows.sms_settings(ctx.scope)
        sender = sms_sender(params.get("MessageAttributes") or {}, settings)
        self._rows.send(ctx.now_ms, "sms", sender, phone, params.get("Subject") or "", body, "")
        record, scope = ctx.machine.meter.record, ctx.scope

        def count() -> None:
            record(scope, NAMESPACE, "NumberOfMessagesPublished", PhoneNumber="PhoneNumberDirect")
            record(scope, NAMESPACE, "NumberOfNotificationsDelivered", PhoneNumber="PhoneNumberDirect")

        ctx.db.after_commit(count)
        return {"MessageId": ctx.entropy.uuid()}

    def _push(self, ctx: Context, params: Params, arn: str) -> Params:
        """A notification to one device."""
        device = self._devices.by_arn(arn, "TargetArn")
        if device is None or "TargetArn" not in params:
            raise invalid("TargetArn Reason: No endpoint found for the target arn specified")
        check_reachable(device)
        if messages.size_of(params) > DEFAULT_MAX_BYTES:
            raise invalid("Message too long")
        application = device.application
        text = messages.texts(params, application.platform)
        self._rows.send(
            ctx.now_ms, "application", application.name, arn, params.get("Subject") or "",
            text.get(application.platform) or text["default"], "",
        )  # fmt: skip
        record, scope, names = ctx.machine.meter.record, application.scope, {
            "Application": application.name, "Platform": application.platform,
        }  # fmt: skip

        def count() -> None:
            record(scope, NAMESPACE, "NumberOfMessagesPublished", **names)
            record(scope, NAMESPACE, "NumberOfNotificationsDelivered", **names)

        ctx.db.after_commit(count)
        return {"MessageId": ctx.entropy.uuid()}

    # -- batches --------------------------------------------------------------------------------------------------

    def publish_batch(self, ctx: Context, params: Params) -> Outcome:
        entries = params.get("PublishBatchRequestEntries") or []
        topic = self._find(ctx, params["TopicArn"], "TopicArn")
        check_entries(entries)
        sizes = [messages.size_of(entry) for entry in entries]
        if sum(sizes) > max(topic.max_bytes, DEFAULT_MAX_BYTES):
            raise AwsError(
                "BatchRequestTooLong", "The length of all the messages put together is more than the limit."
            )
        for position, entry in enumerate(entries, 1):
            messages.check_attributes(entry.get("MessageAttributes") or {}, position)
        texts = [messages.texts(entry) for entry in entries]
        for entry in entries:
            messages.check_group(entry, topic)
        done: list[Params] = []
        failed: list[Params] = []
        for entry, size, text in zip(entries, sizes, texts):
            try:
                messages.check_text(entry)
                if size > topic.max_bytes:
                    raise invalid("Message too long")
            except AwsError as error:
                failed.append(_failure(entry["Id"], error))
                continue
            done.append({"Id": entry["Id"], **self._send(ctx, topic, entry, text, size)})
        return {"Successful": done, "Failed": failed}


def check_entries(entries: list[dict[str, Any]]) -> None:
    """What holds for a batch as a whole. Raises AwsError."""
    if not entries:
        raise AwsError("EmptyBatchRequest", "The batch request doesn't contain any entries.")
    if len(entries) > MAX_ENTRIES:
        raise AwsError("TooManyEntriesInBatchRequest", "The batch request contains more entries than permissible.")
    ids = [entry.get("Id", "") for entry in entries]
    if any(not ENTRY_ID.match(one) for one in ids):
        raise AwsError(
            "InvalidBatchEntryId", "The Id of a batch entry in a batch request doesn't abide by the specification."
        )
    if len(set(ids)) < len(ids):
        raise AwsError("BatchEntryIdsNotDistinct", "Two or more batch entries in the request have the same Id.")


def _failure(entry_id: str, error: AwsError) -> Params:
    return {"Id": entry_id, "Code": error.code, "Message": error.message, "SenderFault": error.sender}
