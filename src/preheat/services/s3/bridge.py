"""Bucket events as EventBridge has them: on the default bus of the bucket's account and region."""

from typing import Any

from preheat.kernel.scope import Scope
from preheat.services.contract import Context
from preheat.services.s3.repository import Bucket

KIND = "EventBridgeConfiguration"
SOURCE = "aws.s3"
_EVENTS = {
    "s3:ObjectCreated:Put": ("Object Created", {"reason": "PutObject"}),
    "s3:ObjectCreated:Post": ("Object Created", {"reason": "PostObject"}),
    "s3:ObjectCreated:Copy": ("Object Created", {"reason": "CopyObject"}),
    "s3:ObjectCreated:CompleteMultipartUpload": ("Object Created", {"reason": "CompleteMultipartUpload"}),
    "s3:ObjectRemoved:Delete": (
        "Object Deleted", {"reason": "DeleteObject", "deletion-type": "Permanently Deleted"}
    ),
    "s3:ObjectTagging:Put": ("Object Tags Added", {}),
    "s3:ObjectTagging:Delete": ("Object Tags Deleted", {}),
}  # fmt: skip


def publish(
    ctx: Context, bucket: Bucket, sequencer: str, event: str, key: str, size: int | None, etag: str | None
) -> None:
    """`event` as "s3:ObjectCreated:Put"."""
    kind, more = _EVENTS[event]
    entity: dict[str, Any] = {"key": key}
    if size is not None and kind != "Object Deleted":
        entity["size"] = size
    if etag is not None:
        entity["etag"] = etag
    entity["sequencer"] = sequencer
    detail = {
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": entity,
        "request-id": ctx.request_id.replace("-", "")[:16].upper(),
        "requester": ctx.principal.account,
        "source-ip-address": ctx.request.peer if ctx.request is not None else "127.0.0.1",
        **more,
    }
    events = ctx.machine.services["events"]
    events.publish(ctx, Scope(bucket.account, bucket.region), SOURCE, kind, detail, [bucket.arn])
