"""Rules of Kinesis Data Streams."""

from preheat.gateway.actions.need import Rule, anything, each
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Params
from preheat.services.kinesis import domain, repository


def _stream(ctx: Context, params: Params) -> list[str]:
    scope, name = domain.named(ctx.scope, params)
    return [scope.arn("kinesis", f"stream/{name}")]


def _listed(ctx: Context, params: Params) -> list[str]:
    """A page that follows names its stream by the token."""
    if params.get("NextToken"):
        return _stream(ctx, {"StreamName": params["NextToken"].rpartition("/")[0] or "*"})
    return _stream(ctx, params)


def _iterated(ctx: Context, params: Params) -> list[str]:
    """The stream that an iterator is of."""
    try:
        position = domain.position_of(params["ShardIterator"], ctx.now)
    except AwsError:
        return ["*"]
    found = repository.by_row(ctx.db, position.stream)
    return ["*"] if found is None else [found.arn]


def kinesis_rules() -> dict[str, Rule]:
    named = (
        "AddTagsToStream CreateStream DecreaseStreamRetentionPeriod DeleteStream DescribeStream DescribeStreamSummary "
        "DisableEnhancedMonitoring EnableEnhancedMonitoring GetShardIterator IncreaseStreamRetentionPeriod "
        "ListTagsForResource ListTagsForStream MergeShards PutRecord PutRecords RemoveTagsFromStream SplitShard "
        "StartStreamEncryption StopStreamEncryption TagResource UntagResource UpdateMaxRecordSize UpdateShardCount "
        "UpdateStreamMode"
    )
    return {
        **each("kinesis", _stream, named),
        **each("kinesis", _iterated, "GetRecords"),
        **each("kinesis", _listed, "ListShards"),
        **each("kinesis", anything, "ListStreams DescribeLimits"),
    }
