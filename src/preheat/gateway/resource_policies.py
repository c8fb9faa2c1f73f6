"""The policies that lie with a resource: S3 buckets, queues, functions, vector buckets, secrets, a role's trust."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context
from preheat.services.events import repository as events
from preheat.services.iam import repository as iam
from preheat.services.s3 import repository as s3
from preheat.services.s3vectors import repository as s3vectors
from preheat.services.secretsmanager import repository as secrets


@dataclass(frozen=True, slots=True)
class Held:
    """`documents` lie with the resource, `owner` is its account ("" when it does not exist). `blocked`: its bucket
    restricts public policies (RestrictPublicBuckets)."""

    documents: tuple[str, ...] = ()
    owner: str = ""
    blocked: bool = False

    def without_public(self) -> "Held":
        """Without the documents that allow everybody."""
        return replace(self, documents=tuple(text for text in self.documents if not grants.is_public(text)))


class ResourcePolicies:
    """`services` are the machine's."""

    def __init__(self, services: Mapping[str, Any]) -> None:
        self._services = services
        self._kinds: dict[str, Callable[[Context, Arn, str], Held]] = {
            "s3": _bucket,
            "sqs": self._queue,
            "sns": self._topic,
            "lambda": self._function,
            "s3vectors": _vector_bucket,
            "secretsmanager": _secret,
            "events": _bus,
            "iam": _role,
        }

    def of(self, ctx: Context, action: str, resource: str) -> Held:
        """What lies with the resource of an ARN; nothing for `*`."""
        try:
            arn = Arn.parse(resource)
        except ValueError:
            return Held()
        kind = self._kinds.get(arn.service)
        return Held(owner=arn.account) if kind is None else kind(ctx, arn, action)

    def _queue(self, ctx: Context, arn: Arn, action: str) -> Held:
        queue = self._services["sqs"].queue_by_arn(":".join(("arn", *arn)))
        text = None if queue is None else queue.attributes.get("Policy")
        return Held((text,) if text else (), arn.account)

    def _topic(self, ctx: Context, arn: Arn, action: str) -> Held:
        text = self._services["sns"].topic_policy(":".join(("arn", *arn)))
        return Held((text,) if text else (), arn.account)

    def _function(self, ctx: Context, arn: Arn, action: str) -> Held:
        """A function's, version's, alias's or layer version's own policy; an event source mapping's is empty."""
        if arn.resource.startswith("layer:"):
            shared = self._services["lambda"].layer_policy(ctx, ":".join(("arn", *arn)))
            return Held(() if shared is None else (json.dumps(shared),), arn.account)
        if not arn.resource.startswith("function:"):
            return Held((), arn.account)
        inner = replace(ctx, scope=arn.scope)
        try:
            found = self._services["lambda"].policy(inner, ":".join(("arn", *arn)))
        except AwsError:
            return Held((), arn.account)
        return Held(() if found is None else (json.dumps(found),), arn.account)


def _bucket(ctx: Context, arn: Arn, action: str) -> Held:
    bucket = s3.bucket(ctx.db, arn.resource.partition("/")[0])
    if bucket is None:
        return Held()
    stored = s3.configuration(ctx.db, bucket.id, "policy")
    block = s3.configuration(ctx.db, bucket.id, "public-access-block")
    blocked = block is not None and bool(json.loads(block).get("RestrictPublicBuckets"))
    return Held(() if stored is None else (json.loads(stored)["Policy"],), bucket.account, blocked)


def _vector_bucket(ctx: Context, arn: Arn, action: str) -> Held:
    name = arn.resource.split("/")[1] if arn.resource.startswith("bucket/") else ""
    bucket = s3vectors.bucket(ctx.db, arn.scope, name)
    return Held((bucket.policy,) if bucket is not None and bucket.policy else (), arn.account)


def _bus(ctx: Context, arn: Arn, action: str) -> Held:
    """An event bus's; rules and the rest have none."""
    if not arn.resource.startswith("event-bus/"):
        return Held((), arn.account)
    bus = events.bus(ctx.db, arn.scope, arn.resource.removeprefix("event-bus/"))
    return Held((bus.policy,) if bus is not None and bus.policy else (), arn.account)


def _secret(ctx: Context, arn: Arn, action: str) -> Held:
    secret = secrets.by_arn(ctx.db, arn.scope, ":".join(("arn", *arn)))
    return Held((secret.policy,) if secret is not None and secret.policy else (), arn.account)


def _role(ctx: Context, arn: Arn, action: str) -> Held:
    """A role's trust policy speaks of who may assume it, and has no resource of its own."""
    if action != "sts:AssumeRole":
        return Held((), arn.account)
    role = iam.entity(ctx.db, "role", arn.account, arn.resource.rpartition("/")[2])
    return Held((role.trust,) if role is not None and role.trust else (), arn.account)
