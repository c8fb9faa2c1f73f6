"""Amazon SQS: operations on queues, and the table of all operations."""

from pathlib import Path
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.kernel.secure import scheme_of
from preheat.services.contract import Context, Operation, Outcome, Params, Platform
from preheat.services.sqs import attributes as attributes_of
from preheat.services.sqs import domain
from preheat.services.sqs.copies import Copies
from preheat.services.sqs.domain import Queue
from preheat.services.sqs.messages import MessageOperations
from preheat.services.sqs.metrics import Metrics
from preheat.services.sqs.moves import MoveOperations
from preheat.services.sqs.permissions import with_permission, without_permission
from preheat.services.sqs.polls import Polls
from preheat.services.sqs.quotas import Quotas
from preheat.services.sqs.receiving import IN_FLIGHT_LIMIT, Receiver
from preheat.services.sqs.repository import SqsRepository
from preheat.services.sqs.texts import Texts

PURGE_INTERVAL_S = 60.0
NAME_REST_S = 60.0
LOOK_MS = 300_000
EXPIRED_PER_STEP = 1_000
PAGE = 1_000
KNOWN_URLS = 10_000


class SqsService:
    name = "sqs"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self, platform: Platform, in_flight_limit: int = IN_FLIGHT_LIMIT) -> None:
        self._rows = SqsRepository(platform.db)
        self._endpoint = platform.settings.endpoint
        polls = self._polls = Polls(self._rows)
        metrics = Metrics(self._rows, self._rows.tenants)
        quotas = Quotas(getattr(platform.settings, "service_quotas", "off") == "enforce")
        texts = Texts(platform.db)
        self.receiver = Receiver(self._rows, self._find, polls, metrics, quotas, texts, in_flight_limit)
        messages = self.messages = MessageOperations(self._rows, self._find, self.receiver, polls, metrics, quotas)
        self.copies = Copies(self._rows, metrics, polls, texts, messages.appears)
        moves = MoveOperations(self._rows, self.queue_by_arn, self._arrived)
        self.loops = [Expiry(self._rows), polls, metrics, moves, texts]
        self.operations: dict[str, Operation] = {
            "CreateQueue": self.create_queue,
            "GetQueueUrl": self.get_queue_url,
            "ListQueues": self.list_queues,
            "DeleteQueue": self.delete_queue,
            "GetQueueAttributes": self.get_queue_attributes,
            "SetQueueAttributes": self.set_queue_attributes,
            "TagQueue": self.tag_queue,
            "UntagQueue": self.untag_queue,
            "ListQueueTags": self.list_queue_tags,
            "PurgeQueue": self.purge_queue,
            "ListDeadLetterSourceQueues": self.list_dead_letter_source_queues,
            "AddPermission": self.add_permission,
            "RemovePermission": self.remove_permission,
            "StartMessageMoveTask": moves.start,
            "CancelMessageMoveTask": moves.cancel,
            "ListMessageMoveTasks": moves.listing,
            "SendMessage": messages.send_message,
            "SendMessageBatch": messages.send_message_batch,
            "ReceiveMessage": self.receiver.receive_message,
            "DeleteMessage": messages.delete_message,
            "DeleteMessageBatch": messages.delete_message_batch,
            "ChangeMessageVisibility": messages.change_message_visibility,
            "ChangeMessageVisibilityBatch": messages.change_message_visibility_batch,
        }

    # -- for the platform -----------------------------------------------------------------------------------------

    def queue_by_arn(self, arn: str) -> Queue | None:
        """The queue an ARN names, or None."""
        _, _, _, region, account, name = arn.split(":", 5)
        return self._rows.queue(Scope(account, region), name)

    def _arrived(self, ctx: Context, source: Queue, target: Queue) -> None:
        """A message came to `target` otherwise than by a send."""
        ctx.db.notify(target.topic)
        self._polls.wake(ctx, target.id, 1)

    def next_visible(self, ctx: Context, queue_arn: str) -> float | None:
        """When the next message that cannot be received yet becomes visible (epoch seconds), or None."""
        queue = self.queue_by_arn(queue_arn)
        at = None if queue is None else self._rows.next_visible(queue, ctx.now_ms)
        return None if at is None else at / 1_000

    def _find(self, ctx: Context, params: Params) -> Queue:
        url = params.get("QueueUrl")
        if not url:
            raise domain.missing("QueueUrl")
        known = self._rows.by_url.get((url, ctx.scope))
        if known is not None:
            return known
        account, _, name = url.rstrip("/").rpartition("/")
        account = account.rpartition("/")[2]
        if not (account.isdigit() and len(account) == 12):
            account = ctx.scope.account
        queue = self._rows.queue(Scope(account, ctx.scope.region), name)
        if queue is None:
            raise domain.no_such_queue(domain.is_query(ctx.request))
        if len(self._rows.by_url) >= KNOWN_URLS:
            self._rows.by_url.clear()
        self._rows.by_url[url, ctx.scope] = queue
        return queue

    def _url(self, ctx: Context, queue: Queue) -> str:
        host = ctx.request.headers.get("host") if ctx.request is not None else None
        base = f"{scheme_of(ctx.request)}://{host}" if host else self._endpoint
        return f"{base}/{queue.scope.account}/{queue.name}"

    # -- queues ---------------------------------------------------------------------------------------------------

    def create_queue(self, ctx: Context, params: Params) -> Outcome:
        name = params["QueueName"]
        _check_endpoint(ctx, "CreateQueue")
        attributes = attributes_of.plain_booleans(params.get("Attributes") or {})
        fifo = attributes.get("FifoQueue") == "true" or name.endswith(".fifo")
        attributes_of.check_name(name, fifo)
        if name.endswith(".fifo") and attributes.get("FifoQueue") != "true":
            raise domain.invalid_value(
                "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
            )
        attributes_of.check_attributes(attributes, fifo=fifo, create=True)
        attributes = attributes_of.plain_numbers(attributes)
        attributes_of.check_together(attributes)
        attributes_of.check_tags(name, params.get("tags") or {})
        self._check_dead_letter_target(attributes, ctx.scope.arn("sqs", name), fifo)
        known = self._rows.queue(ctx.scope, name)
        if known is not None:
            _compare(known, attributes)
            return {"QueueUrl": self._url(ctx, known)}
        deleted_at = self._rows.deleted_at(ctx.scope, name)
        if deleted_at is not None and ctx.now - deleted_at < NAME_REST_S:
            raise domain.simple("QueueDeletedRecently", "You must wait 60 seconds after deleting a queue before you "
                                "can create another with the same name.")  # fmt: skip
        attributes = attributes_of.settle_encryption({}, attributes)
        stored = {name: value for name, value in attributes.items() if value != ""}
        queue = self._rows.create_queue(ctx.scope, name, stored, dict(params.get("tags") or {}), int(ctx.now))
        ctx.db.notify("sqs:queues")
        return {"QueueUrl": self._url(ctx, queue)}

    def _check_dead_letter_target(self, attributes: dict[str, str], source: str, fifo: bool) -> None:
        """The queue `source` (an ARN) may send its dead letters where `attributes` say. Raises AwsError."""
        policy = attributes.get("RedrivePolicy")
        if not policy:
            return
        document = msgspec.json.decode(policy)
        arn = document["deadLetterTargetArn"]
        target = self.queue_by_arn(arn)
        if Arn.parse(arn).account != Arn.parse(source).account:
            raise domain.invalid_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: Dead-letter "
                                       "target owner should be same as the source.")  # fmt: skip
        if target is None or target.scope != Arn.parse(source).scope:
            raise domain.invalid_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: Dead letter "
                                       "target does not exist.")  # fmt: skip
        if target.fifo != fifo:
            raise domain.invalid_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: Dead-letter "
                                       "queue must be same type of queue as the source.")  # fmt: skip
        if not attributes_of.lets_in(target, source):
            raise domain.invalid_value(f"Value {policy} for parameter RedrivePolicy is invalid. Reason: The "
                                       "RedriveAllowPolicy of the dead-letter queue does not allow this source queue."
                                       )  # fmt: skip

    def get_queue_url(self, ctx: Context, params: Params) -> Outcome:
        owner = params.get("QueueOwnerAWSAccountId") or ctx.scope.account
        queue = self._rows.queue(Scope(owner, ctx.scope.region), params["QueueName"])
        if queue is None:
            raise domain.no_such_queue(domain.is_query(ctx.request))
        return {"QueueUrl": self._url(ctx, queue)}

    def list_queues(self, ctx: Context, params: Params) -> Outcome:
        _check_endpoint(ctx, "ListQueues")
        limit = params.get("MaxResults")
        size = limit if limit is not None else PAGE
        domain.check_range("MaxResults", size, 1, PAGE, "MaxResults must be an integer between 1 and 1000.")
        queues = self._rows.queues(
            ctx.scope, params.get("QueueNamePrefix") or "", params.get("NextToken") or "", size + 1
        )
        output: Params = {}
        if queues:
            output["QueueUrls"] = [self._url(ctx, queue) for queue in queues[:size]]
        if limit is not None and len(queues) > size:
            output["NextToken"] = queues[size - 1].name
        return output

    def delete_queue(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._rows.delete_queue(queue, ctx.now)
        self._polls.wake(ctx, queue.id, None)
        ctx.db.notify(queue.topic)
        ctx.db.notify("sqs:queues")
        return {}

    def get_queue_attributes(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        names = params.get("AttributeNames") or []
        known = {*domain.SETTABLE, *domain.COMPUTED, "All"}
        for name in names:
            if name not in known:
                raise domain.invalid_attribute_name(f"Unknown Attribute {name}.")
        values = self._attributes(ctx, queue, names)
        chosen = values if "All" in names else {name: values[name] for name in names if name in values}
        return {"Attributes": chosen} if chosen else {}

    def _attributes(self, ctx: Context, queue: Queue, names: list[str]) -> dict[str, str]:
        values = {
            name: default
            for name, (_, _, default) in domain.INTEGER_RANGES.items()
        }
        values["SqsManagedSseEnabled"] = "true"
        if queue.fifo:
            values |= {"ContentBasedDeduplication": "false", "DeduplicationScope": "queue"}
            values["FifoThroughputLimit"] = "perQueue"
        values |= queue.attributes
        if not queue.attributes.get("KmsMasterKeyId"):
            values.pop("KmsDataKeyReusePeriodSeconds", None)
        values["QueueArn"] = queue.arn
        values["CreatedTimestamp"] = str(queue.created_s)
        values["LastModifiedTimestamp"] = str(queue.modified_s)
        if "All" in names or any(name.startswith("Approximate") for name in names):
            visible, in_flight, delayed = self._rows.depth(queue, ctx.now_ms)
            values["ApproximateNumberOfMessages"] = str(visible)
            values["ApproximateNumberOfMessagesNotVisible"] = str(in_flight)
            values["ApproximateNumberOfMessagesDelayed"] = str(delayed)
        return values

    def set_queue_attributes(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        changes = attributes_of.plain_booleans(params["Attributes"])
        attributes_of.check_attributes(changes, fifo=queue.fifo, create=False)
        changes = attributes_of.plain_numbers(changes)
        self._check_dead_letter_target(changes, queue.arn, queue.fifo)
        merged = attributes_of.settle_encryption(queue.attributes, changes)
        attributes_of.check_together(merged)
        self._set(ctx, queue, merged)
        return {}

    def _set(self, ctx: Context, queue: Queue, attributes: dict[str, str]) -> None:
        """Keep `attributes` as the queue's; an empty value takes one away."""
        kept = {name: value for name, value in attributes.items() if value != ""}
        self._rows.set_attributes(queue, kept, int(ctx.now))
        changed = self._rows.queue(queue.scope, queue.name)
        assert changed is not None
        if queue.fifo and changed.delay_ms != queue.delay_ms:
            self._rows.delay_anew(changed, ctx.now_ms)
            self._polls.alarm(ctx, changed, self._rows.next_visible(changed, ctx.now_ms))
            self._polls.wake(ctx, changed.id, self._rows.ready(changed, ctx.now_ms, PAGE))
        ctx.db.notify(queue.topic + ":later")
        ctx.db.notify("sqs:queues")

    def add_permission(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        policy = with_permission(queue, params["Label"], params["AWSAccountIds"], params["Actions"])
        self._set(ctx, queue, {**queue.attributes, "Policy": policy})
        return {}

    def remove_permission(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        self._set(ctx, queue, {**queue.attributes, "Policy": without_permission(queue, params["Label"])})
        return {}

    def tag_queue(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        if not params["Tags"]:
            raise domain.missing("Tags")
        tags = self._rows.tags(queue) | params["Tags"]
        attributes_of.check_tags(queue.name, tags)
        self._rows.set_tags(queue, tags)
        return {}

    def untag_queue(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        if not params["TagKeys"]:
            raise domain.invalid_value("Tag keys must be between 1 and 128 characters in length.")
        tags = self._rows.tags(queue)
        for key in params["TagKeys"]:
            tags.pop(key, None)
        self._rows.set_tags(queue, tags)
        return {}

    def list_queue_tags(self, ctx: Context, params: Params) -> Outcome:
        tags = self._rows.tags(self._find(ctx, params))
        return {"Tags": tags} if tags else {}

    def purge_queue(self, ctx: Context, params: Params) -> Outcome:
        queue = self._find(ctx, params)
        last = self._rows.purged_at(queue)
        if last is not None and ctx.now - last < PURGE_INTERVAL_S:
            raise domain.simple(
                "PurgeQueueInProgress",
                f"Only one PurgeQueue operation on {queue.name} is allowed every 60 seconds.",
                403,
            )
        self._rows.purge(queue)
        self._rows.set_purged_at(queue, ctx.now)
        ctx.db.notify("sqs:queues")
        return {}

    def list_dead_letter_source_queues(self, ctx: Context, params: Params) -> Outcome:
        target = self._find(ctx, params)
        limit = params.get("MaxResults")
        size = PAGE if limit is None else limit
        domain.check_range("MaxResults", size, 1, PAGE, "MaxResults must be an integer between 1 and 1000.")
        sources = [
            queue
            for queue in self._rows.queues(target.scope, after=params.get("NextToken") or "")
            if queue.redrive is not None and queue.redrive.dead_letter_arn == target.arn
        ]
        output: Params = {"queueUrls": [self._url(ctx, queue) for queue in sources[:size]]}
        if limit is not None and len(sources) > size:
            output["NextToken"] = sources[size - 1].name
        return output


def _check_endpoint(ctx: Context, action: str) -> None:
    """Raises InvalidAction for a call over the older protocol that was sent to a queue's URL."""
    if ctx.request is not None and domain.is_query(ctx.request) and domain.QUEUE_PATH.match(ctx.request.path):
        raise AwsError("InvalidAction", f"The action {action} is not valid for this endpoint.")


class Expiry:
    """Drops messages past their retention and deduplication ids past their window. What comes after a look expires no
    sooner than the shortest retention."""

    name = "sqs expiry"
    topics = ("sqs:queues",)

    def __init__(self, repository: SqsRepository) -> None:
        self._rows = repository

    def step(self, ctx: Context) -> float | None:
        now_ms = ctx.now_ms
        queues = list(self._rows.all_queues())
        times: list[float] = [now_ms + min([LOOK_MS, *(queue.retention_ms for queue in queues)])]
        for queue in queues:
            dropped, next_ms = self._rows.expire(queue, now_ms, EXPIRED_PER_STEP)
            if dropped >= EXPIRED_PER_STEP:
                next_ms = now_ms
            if next_ms is not None:
                times.append(next_ms)
        self._rows.forget_attempts(now_ms)
        self._rows.forget_deleted(ctx.now - NAME_REST_S)
        if self._rows.drop_leftovers(EXPIRED_PER_STEP):
            times.append(now_ms)
        following = self._rows.forget_duplicates(now_ms, EXPIRED_PER_STEP)
        if following is not None:
            times.append(following)
        return max(min(times), now_ms) / 1_000


def _compare(queue: Queue, attributes: dict[str, Any]) -> None:
    defaults = {name: default for name, (_, _, default) in domain.INTEGER_RANGES.items()} | {
        "SqsManagedSseEnabled": "true", "ContentBasedDeduplication": "false", "DeduplicationScope": "queue",
        "FifoThroughputLimit": "perQueue", **dict.fromkeys(domain.TEXT_ATTRIBUTES, ""),
    }  # fmt: skip
    for name, value in attributes.items():
        if name == "FifoQueue":
            continue
        if queue.attributes.get(name, defaults[name]) != (value or defaults[name]):
            raise AwsError(
                "QueueNameExists",
                f"A queue already exists with the same name and a different value for attribute {name}",
                query_code="QueueAlreadyExists",
            )


def build(platform: Platform) -> SqsService:
    return SqsService(platform)
