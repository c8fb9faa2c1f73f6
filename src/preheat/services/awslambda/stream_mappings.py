"""Event source mappings of Kinesis streams: what they may be told, checked as Lambda checks it."""

from dataclasses import replace
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.awslambda.domain import MappingConfig, StreamConfig, as_datetime, check_range, invalid, violation
from preheat.services.contract import Context, Params

DEFAULT_BATCH = 100
POSITIONS = ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
TARGETS = ("sqs", "sns", "s3")
READS = ("GetRecords", "GetShardIterator", "DescribeStream", "ListShards")
"""What the function's role must be allowed to do."""
OTHERS_ONLY = (
    "ScalingConfig", "ProvisionedPollerConfig", "Topics", "Queues", "SourceAccessConfigurations",
    "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig", "LoggingConfig", "TumblingWindowInSeconds",
)  # fmt: skip


def check_position(params: Params) -> None:
    """Raises ValidationException for a StartingPosition that there is not."""
    position = params.get("StartingPosition")
    if position is not None and position not in POSITIONS:
        raise violation(position, "startingPosition", f"Member must satisfy enum value set: [{', '.join(POSITIONS)}]")


def stream_named(ctx: Context, arn: Arn) -> str:
    """The stream that is to be read. Raises InvalidParameterValueException."""
    if arn.scope != ctx.scope:
        raise invalid("The stream must be in the region and account of the function.")
    try:
        ctx.call("kinesis", "DescribeStreamSummary", {"StreamARN": str(arn)})
    except AwsError as error:
        raise invalid(f"Stream not found: {arn}") from error
    return arn.resource.removeprefix("stream/")


def stream_settings(params: Params, before: MappingConfig | None) -> dict[str, Any]:
    """What `params` change of a mapping's settings; `before` is None for a new mapping. Raises AwsError."""
    for member in OTHERS_ONLY:
        if params.get(member):
            raise invalid(f"Unsupported {member} parameter for given event source mapping type.")
    held = before.stream if before is not None and before.stream is not None else StreamConfig()
    changes: dict[str, Any] = {}
    if before is None:
        changes |= _start(params)
    elif params.get("StartingPosition"):
        raise invalid("StartingPosition cannot be updated.")
    for member, name, least, most in (
        ("ParallelizationFactor", "parallelization", 1, 10),
        ("MaximumRetryAttempts", "max_retries", -1, 10_000),
        ("MaximumRecordAgeInSeconds", "max_age_s", -1, 604_800),
    ):
        if params.get(member) is not None:
            changes[name] = check_range(params[member], member[0].lower() + member[1:], least, most)
    if -1 < changes.get("max_age_s", -1) < 60:
        raise invalid("MaximumRecordAgeInSeconds must be -1 or at least 60.")
    if params.get("BisectBatchOnFunctionError") is not None:
        changes["bisect"] = params["BisectBatchOnFunctionError"]
    if "DestinationConfig" in params:
        changes["on_failure"] = _destination(params["DestinationConfig"] or {})
    settings: dict[str, Any] = {"stream": replace(held, **changes)}
    if before is None and params.get("BatchSize") is None:
        settings["batch_size"] = DEFAULT_BATCH
    return settings


def _start(params: Params) -> dict[str, Any]:
    position = params.get("StartingPosition")
    if position is None:
        raise violation("null", "startingPosition", "Member must not be null")
    at = params.get("StartingPositionTimestamp")
    if position != "AT_TIMESTAMP" and at is not None:
        raise invalid("Timestamp only valid with StartingPosition AT_TIMESTAMP")
    if position == "AT_TIMESTAMP" and at is None:
        raise invalid("StartingPositionTimestamp must be given with the StartingPosition AT_TIMESTAMP.")
    if at is not None and at.timestamp() < 0:
        raise invalid(
            "Received Exception while reading from provided stream. class java.lang.Long can not be converted to a "
            "Timestamp"
        )
    return {"starting_position": position, "starting_at": at.timestamp() if at is not None else 0.0}


def _destination(config: Params) -> str:
    """The ARN that a failed batch's record goes to. Raises InvalidParameterValueException."""
    if (config.get("OnSuccess") or {}).get("Destination"):
        raise invalid("OnSuccess destination is not supported for event source mappings.")
    arn = (config.get("OnFailure") or {}).get("Destination") or ""
    if not arn:
        return ""
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        raise invalid(f"The destination ARN {arn} is invalid.") from None
    if parsed.service not in TARGETS:
        raise invalid("The destination of an event source mapping is an SQS queue, an SNS topic or an S3 bucket.")
    return arn


def stream_shown(config: MappingConfig) -> Params:
    """The members that an answer has for a stream's mapping."""
    held = config.stream
    if held is None:
        return {}
    shown: Params = {
        "StartingPosition": held.starting_position, "ParallelizationFactor": held.parallelization,
        "MaximumRecordAgeInSeconds": held.max_age_s, "MaximumRetryAttempts": held.max_retries,
        "BisectBatchOnFunctionError": held.bisect, "TumblingWindowInSeconds": 0,
        "DestinationConfig": {"OnFailure": {"Destination": held.on_failure} if held.on_failure else {}},
    }  # fmt: skip
    if held.starting_position == "AT_TIMESTAMP":
        shown["StartingPositionTimestamp"] = as_datetime(held.starting_at)
    return shown
