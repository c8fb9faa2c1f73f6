"""Kinesis Data Streams: streams, shards, records."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from preheat.services.constraints import check_number, check_text
from preheat.services.contract import Context, Loop, Operation, Params, Platform
from preheat.services.kinesis import domain, repository, shards
from preheat.services.kinesis.domain import Shard, Stream, invalid
from preheat.services.kinesis.reading import Reading
from preheat.services.kinesis.writing import Writing

BECOMES_ACTIVE_S = 0.1
CLEAN_EVERY_S = 3_600.0
CLEANED_PER_STEP = 1_000
MODES = ("PROVISIONED", "ON_DEMAND")
METRICS = (
    "IncomingBytes", "IncomingRecords", "OutgoingBytes", "OutgoingRecords", "WriteProvisionedThroughputExceeded",
    "ReadProvisionedThroughputExceeded", "IteratorAgeMilliseconds",
)  # fmt: skip


def stream_of(ctx: Context, params: Params) -> Stream:
    """Raises ResourceNotFoundException."""
    check_text(params, "StreamName", 128, domain.NAME, 1)
    scope, name = domain.named(ctx.scope, params)
    found = repository.find(ctx.db, scope, name)
    if found is None:
        raise domain.not_found(name, scope)
    return found


def _ready(ctx: Context, params: Params) -> Stream:
    """A stream that may be changed now. Raises ResourceInUseException for one that is being changed."""
    stream = stream_of(ctx, params)
    if stream.status(ctx.now) != "ACTIVE":
        text = f"Stream {stream.name} under account {stream.account} not ACTIVE, instead in state "
        raise domain.in_use(text + stream.status(ctx.now))
    return stream


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


# -- streams ----------------------------------------------------------------------------------------------------------


def create_stream(ctx: Context, params: Params) -> Params:
    name = params["StreamName"]
    check_text(params, "StreamName", 128, domain.NAME, 1)
    mode = params.get("StreamModeDetails", {}).get("StreamMode", "PROVISIONED")
    if mode not in MODES:
        raise invalid(f"StreamMode {mode} is not one of {', '.join(MODES)}.")
    for member in ("WarmThroughputMiBps", "RecordDistributionStrategy"):
        if params.get(member):
            raise domain.unsupported(member)
    check_number(params, "MaxRecordSizeInKiB", 1_024, 10_240)
    count = params.get("ShardCount")
    if mode == "ON_DEMAND":
        if count is not None:
            raise invalid("ShardCount cannot be specified for streams in ON_DEMAND mode.")
        count = domain.SHARDS_OF_ON_DEMAND
    if count is None:
        raise invalid("ShardCount is required for streams in PROVISIONED mode.")
    check_number({"ShardCount": count}, "ShardCount", 1)
    if count > domain.MOST_SHARDS:
        raise domain.limit_exceeded(f"This request would exceed the shard limit of {domain.MOST_SHARDS}.")
    if repository.find(ctx.db, ctx.scope, name) is not None:
        raise domain.in_use(f"Stream {name} under account {ctx.scope.account} already exists.")
    tags = params.get("Tags", {})
    domain.check_tags(tags)
    most_kib = params.get("MaxRecordSizeInKiB", 1_024)
    row = repository.add(ctx.db, ctx.scope, name, ctx.now, ctx.now + BECOMES_ACTIVE_S, mode, most_kib, tags)
    for span in domain.ranges(count):
        repository.open_shard(ctx.db, row, span, ctx.now)
    return {}


def delete_stream(ctx: Context, params: Params) -> Params:
    """There are no consumers here that EnforceConsumerDeletion would have to remove."""
    stream = stream_of(ctx, params)
    repository.remove(ctx.db, stream)
    ctx.db.notify(repository.topic(stream.arn))
    ctx.db.notify("kinesis:clean")
    return {}


def describe_stream(ctx: Context, params: Params) -> Params:
    stream = stream_of(ctx, params)
    check_number(params, "Limit", 1, 10_000)
    start, limit = params.get("ExclusiveStartShardId"), params.get("Limit", 100)
    after = -1 if start is None else domain.shard_number(start)
    if after is None:
        raise invalid(f"ExclusiveStartShardId {start} is invalid.")
    held = [one for one in repository.shards(ctx.db, stream.row) if one.number > after]
    described = _described(ctx, stream)
    described |= {"Shards": [_shown(one) for one in held[:limit]], "HasMoreShards": len(held) > limit}
    return {"StreamDescription": described}


def describe_stream_summary(ctx: Context, params: Params) -> Params:
    stream = stream_of(ctx, params)
    described = _described(ctx, stream)
    described |= {"OpenShardCount": len(shards.open_shards(ctx, stream)), "ConsumerCount": 0,
                  "MaxRecordSizeInKiB": stream.most_kib}  # fmt: skip
    return {"StreamDescriptionSummary": described}


def _described(ctx: Context, stream: Stream) -> Params:
    found: Params = {
        "StreamName": stream.name, "StreamARN": stream.arn, "StreamStatus": stream.status(ctx.now),
        "StreamModeDetails": {"StreamMode": stream.mode}, "RetentionPeriodHours": stream.retention_h,
        "StreamCreationTimestamp": _moment(stream.created),
        "EnhancedMonitoring": [{"ShardLevelMetrics": json.loads(stream.metrics)}],
        "EncryptionType": "KMS" if stream.key_id else "NONE",
    }  # fmt: skip
    if stream.key_id:
        found["KeyId"] = stream.key_id
    return found


def _shown(held: Shard) -> Params:
    sequences = {"StartingSequenceNumber": domain.sequence_number(held.starts, held.number)}
    if held.ends is not None:
        sequences["EndingSequenceNumber"] = domain.sequence_number(held.ends, held.number)
    found: Params = {
        "ShardId": held.id,
        "HashKeyRange": {"StartingHashKey": held.first_hash, "EndingHashKey": held.last_hash},
        "SequenceNumberRange": sequences,
    }
    if held.parent is not None:
        found["ParentShardId"] = domain.shard_id(held.parent)
    if held.adjacent is not None:
        found["AdjacentParentShardId"] = domain.shard_id(held.adjacent)
    return found


def list_streams(ctx: Context, params: Params) -> Params:
    check_number(params, "Limit", 1, 10_000)
    limit, after = params.get("Limit", 100), params.get("NextToken") or params.get("ExclusiveStartStreamName") or ""
    found = repository.streams(ctx.db, ctx.scope, after, limit + 1)
    shown = found[:limit]
    output: Params = {
        "StreamNames": [one.name for one in shown], "HasMoreStreams": len(found) > limit,
        "StreamSummaries": [
            {"StreamName": one.name, "StreamARN": one.arn, "StreamStatus": one.status(ctx.now),
             "StreamModeDetails": {"StreamMode": one.mode}, "StreamCreationTimestamp": _moment(one.created)}
            for one in shown
        ],
    }  # fmt: skip
    if len(found) > limit:
        output["NextToken"] = shown[-1].name
    return output


def list_shards(ctx: Context, params: Params) -> Params:
    check_number(params, "MaxResults", 1, 10_000)
    token, limit = params.get("NextToken"), params.get("MaxResults", 1_000)
    if token:
        if any(params.get(name) for name in ("StreamName", "StreamARN", "ExclusiveStartShardId")):
            raise invalid("NextToken and StreamName cannot be provided together.")
        name, _, after = token.rpartition("/")
        params = {**params, "StreamName": name, "ExclusiveStartShardId": after}
    stream = stream_of(ctx, params)
    created = params.get("StreamCreationTimestamp")
    if created is not None and abs(created.timestamp() - stream.created) >= 1:
        raise domain.not_found(stream.name, stream.scope)
    start = params.get("ExclusiveStartShardId")
    after_number = -1 if not start else domain.shard_number(start)
    if after_number is None:
        raise invalid(f"ExclusiveStartShardId {start} is invalid.")
    kept = _filtered(ctx, stream, params.get("ShardFilter"))
    found = [one for one in kept if one.number > after_number]
    output: Params = {"Shards": [_shown(one) for one in found[:limit]]}
    if len(found) > limit:
        output["NextToken"] = f"{stream.name}/{found[limit - 1].id}"
    return output


def _filtered(ctx: Context, stream: Stream, wanted: Params | None) -> list[Shard]:
    held = repository.shards(ctx.db, stream.row)
    if wanted is None:
        return held
    kind, horizon = wanted["Type"], ctx.now - stream.retention_h * 3_600
    if kind == "AFTER_SHARD_ID":
        number = domain.shard_number(wanted.get("ShardId", ""))
        if number is None:
            raise invalid("ShardId must be specified with the ShardFilterType AFTER_SHARD_ID.")
        return [one for one in held if one.number > number]
    if kind == "AT_LATEST":
        return [one for one in held if one.closed_at is None]
    at = wanted["Timestamp"].timestamp() if wanted.get("Timestamp") else None
    if kind in ("AT_TIMESTAMP", "FROM_TIMESTAMP") and at is None:
        raise invalid(f"Timestamp must be specified with the ShardFilterType {kind}.")
    moment = horizon if at is None else max(at, horizon)
    if kind in ("AT_TIMESTAMP", "AT_TRIM_HORIZON"):
        return [one for one in held if one.opened_at <= max(moment, stream.created) and _open_after(one, moment)]
    return [one for one in held if _open_after(one, moment)]


def _open_after(held: Shard, at: float) -> bool:
    return held.closed_at is None or held.closed_at > at


# -- changes ----------------------------------------------------------------------------------------------------------


def _changed(ctx: Context, stream: Stream, **values: Any) -> None:
    repository.change(ctx.db, stream, active_at=max(ctx.now + BECOMES_ACTIVE_S, stream.created + 1), **values)
    ctx.db.notify(repository.topic(stream.arn))


def _retain(longer: bool) -> Operation:
    def change(ctx: Context, params: Params) -> Params:
        stream, hours = stream_of(ctx, params), params["RetentionPeriodHours"]
        if not domain.LEAST_RETENTION_H <= hours <= domain.MOST_RETENTION_H:
            raise invalid(
                f"Requested retention period ({hours} hours) for stream {stream.name} must be between "
                f"{domain.LEAST_RETENTION_H} and {domain.MOST_RETENTION_H} hours."
            )
        if hours != stream.retention_h and (hours > stream.retention_h) != longer:
            kind, side = ("Increase", "shorter") if longer else ("Decrease", "longer")
            raise invalid(
                f"Requested retention period ({hours} hours) for stream {stream.name} can not be {side} than existing "
                f"retention period ({stream.retention_h} hours). Use {'Decrease' if longer else 'Increase'}"
                f"RetentionPeriod API instead of {kind}RetentionPeriod."
            )
        repository.change(ctx.db, stream, retention_h=hours)
        ctx.db.notify("kinesis:clean")
        return {}

    return change


def split_shard(ctx: Context, params: Params) -> Params:
    stream = _ready(ctx, params)
    shards.split(ctx, stream, params)
    _changed(ctx, stream)
    return {}


def merge_shards(ctx: Context, params: Params) -> Params:
    stream = _ready(ctx, params)
    shards.merge(ctx, stream, params)
    _changed(ctx, stream)
    return {}


def update_shard_count(ctx: Context, params: Params) -> Params:
    stream, wanted = _ready(ctx, params), params["TargetShardCount"]
    check_number(params, "TargetShardCount", 1)
    if params["ScalingType"] != "UNIFORM_SCALING":
        raise invalid("ScalingType must be UNIFORM_SCALING.")
    if stream.mode == "ON_DEMAND":
        raise invalid(f"Request is invalid. Stream {stream.name} under account {stream.account} is in On-Demand mode.")
    before = shards.scale(ctx, stream, wanted)
    _changed(ctx, stream)
    return {"StreamName": stream.name, "StreamARN": stream.arn, "CurrentShardCount": before, "TargetShardCount": wanted}


def update_stream_mode(ctx: Context, params: Params) -> Params:
    stream, mode = _ready(ctx, params), params["StreamModeDetails"]["StreamMode"]
    if params.get("WarmThroughputMiBps"):
        raise domain.unsupported("WarmThroughputMiBps")
    if mode not in MODES:
        raise invalid(f"StreamMode {mode} is not one of {', '.join(MODES)}.")
    _changed(ctx, stream, mode=mode)
    return {}


def update_max_record_size(ctx: Context, params: Params) -> Params:
    check_number(params, "MaxRecordSizeInKiB", 1_024, 10_240)
    _changed(ctx, _ready(ctx, params), most_kib=params["MaxRecordSizeInKiB"])
    return {}


def start_encryption(ctx: Context, params: Params) -> Params:
    stream = _ready(ctx, params)
    if params["EncryptionType"] != "KMS":
        raise invalid("The encryption type must be KMS.")
    _changed(ctx, stream, key_id=params["KeyId"])
    return {}


def stop_encryption(ctx: Context, params: Params) -> Params:
    stream = _ready(ctx, params)
    if params["EncryptionType"] != "KMS" or (stream.key_id and params["KeyId"] != stream.key_id):
        raise invalid("The encryption type and key must be those of the stream.")
    _changed(ctx, stream, key_id=None)
    return {}


def _monitor(on: bool) -> Operation:
    def change(ctx: Context, params: Params) -> Params:
        stream, named = stream_of(ctx, params), params["ShardLevelMetrics"]
        wrong = [name for name in named if name not in (*METRICS, "ALL")]
        if wrong:
            raise invalid(f"{wrong[0]} is not a shard level metric.")
        wanted = set(METRICS) if "ALL" in named else set(named)
        before = set(json.loads(stream.metrics))
        after = before | wanted if on else before - wanted
        repository.change(ctx.db, stream, metrics=json.dumps(sorted(after)))
        return {
            "StreamName": stream.name, "StreamARN": stream.arn, "CurrentShardLevelMetrics": sorted(before),
            "DesiredShardLevelMetrics": sorted(after),
        }  # fmt: skip

    return change


def describe_limits(ctx: Context, params: Params) -> Params:
    found = repository.streams(ctx.db, ctx.scope, "", 10_000)
    count = sum(len(shards.open_shards(ctx, one)) for one in found)
    on_demand = sum(one.mode == "ON_DEMAND" for one in found)
    return {
        "ShardLimit": domain.MOST_SHARDS, "OpenShardCount": count, "OnDemandStreamCount": on_demand,
        "OnDemandStreamCountLimit": 50,
    }  # fmt: skip


# -- tags -------------------------------------------------------------------------------------------------------------


def add_tags(ctx: Context, params: Params) -> Params:
    stream = stream_of(ctx, params)
    tags = {**json.loads(stream.tags), **params["Tags"]}
    domain.check_tags(tags)
    repository.change(ctx.db, stream, tags=json.dumps(tags))
    return {}


def remove_tags(ctx: Context, params: Params) -> Params:
    stream = stream_of(ctx, params)
    tags = {key: value for key, value in json.loads(stream.tags).items() if key not in params["TagKeys"]}
    repository.change(ctx.db, stream, tags=json.dumps(tags))
    return {}


def list_tags_for_stream(ctx: Context, params: Params) -> Params:
    check_number(params, "Limit", 1, 50)
    tags = json.loads(stream_of(ctx, params).tags)
    limit, after = params.get("Limit", 50), params.get("ExclusiveStartTagKey", "")
    keys = [key for key in sorted(tags) if key > after]
    shown = [{"Key": key, "Value": tags[key]} for key in keys[:limit]]
    return {"Tags": shown, "HasMoreTags": len(keys) > limit}


def list_tags_for_resource(ctx: Context, params: Params) -> Params:
    tags = json.loads(stream_of(ctx, params).tags)
    return {"Tags": [{"Key": key, "Value": tags[key]} for key in sorted(tags)]}


# -- the service ------------------------------------------------------------------------------------------------------


class CleanLoop:
    """Removes the records of deleted streams, and those past their stream's retention; reads hide them at once."""

    name = "kinesis-clean"
    topics = ("kinesis:clean",)

    def step(self, ctx: Context) -> float | None:
        gone = ctx.db.value("SELECT MIN(stream) FROM kinesis_debris")
        if gone is not None:
            if repository.clean(ctx.db, gone, None, CLEANED_PER_STEP) < CLEANED_PER_STEP:
                ctx.db.run("DELETE FROM kinesis_debris WHERE stream = ?", gone)
            return ctx.now
        found = ctx.db.all("SELECT row, retention_h FROM kinesis_streams")
        for row, hours in found:
            horizon = ctx.now_ms - hours * 3_600_000
            if repository.clean(ctx.db, row, horizon, CLEANED_PER_STEP) == CLEANED_PER_STEP:
                return ctx.now
            ctx.db.run(
                "DELETE FROM kinesis_shards WHERE stream = ? AND closed_at IS NOT NULL AND closed_at * 1000 < ?",
                row, horizon,
            )  # fmt: skip
        return ctx.now + CLEAN_EVERY_S if found else None


class KinesisService:
    name = "kinesis"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self) -> None:
        self.loops: list[Loop] = [CleanLoop()]
        writing, reading = Writing(stream_of), Reading(stream_of)
        self.operations: dict[str, Operation] = {
            "AddTagsToStream": add_tags,
            "CreateStream": create_stream,
            "DecreaseStreamRetentionPeriod": _retain(False),
            "DeleteStream": delete_stream,
            "DescribeLimits": describe_limits,
            "DescribeStream": describe_stream,
            "DescribeStreamSummary": describe_stream_summary,
            "DisableEnhancedMonitoring": _monitor(False),
            "EnableEnhancedMonitoring": _monitor(True),
            "GetRecords": reading.get_records,
            "GetShardIterator": reading.get_shard_iterator,
            "IncreaseStreamRetentionPeriod": _retain(True),
            "ListShards": list_shards,
            "ListStreams": list_streams,
            "ListTagsForResource": list_tags_for_resource,
            "ListTagsForStream": list_tags_for_stream,
            "MergeShards": merge_shards,
            "PutRecord": writing.put_record,
            "PutRecords": writing.put_records,
            "RemoveTagsFromStream": remove_tags,
            "SplitShard": split_shard,
            "StartStreamEncryption": start_encryption,
            "StopStreamEncryption": stop_encryption,
            "TagResource": add_tags,
            "UntagResource": remove_tags,
            "UpdateMaxRecordSize": update_max_record_size,
            "UpdateShardCount": update_shard_count,
            "UpdateStreamMode": update_stream_mode,
        }


def build(platform: Platform) -> KinesisService:
    return KinesisService()
