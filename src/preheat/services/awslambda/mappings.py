"""Event source mappings: their configuration. `triggers/` polls for them."""

from dataclasses import replace
from typing import Any

from preheat.identity import policy
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services import findings
from preheat.services.awslambda import repository
from preheat.services.awslambda.advice import advise_function
from preheat.services.awslambda.configuration import check_tags
from preheat.services.awslambda.core import Core, Operation, existing, load, marker, page, resource_missing
from preheat.services.awslambda.domain import (
    FunctionName,
    Mapping,
    MappingConfig,
    as_datetime,
    check_range,
    conflict,
    invalid,
    parse_name,
    violation,
)
from preheat.services.awslambda.patterns import PatternError, check_filter
from preheat.services.awslambda.stream_mappings import (
    READS,
    check_position,
    stream_named,
    stream_settings,
    stream_shown,
)
from preheat.services.contract import Context, Outcome, Params, Principal, Reply

MAX_FILTERS = 5
MAX_PATTERN_CHARACTERS = 4_096
_STREAM_ONLY = (
    "ParallelizationFactor", "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError", "MaximumRetryAttempts",
    "TumblingWindowInSeconds", "DestinationConfig", "Topics", "Queues", "SourceAccessConfigurations",
    "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig",
    "DocumentDBEventSourceConfig", "LoggingConfig",
)  # fmt: skip
EMPTIES = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
"""What the function's role must be allowed to do with a queue."""
MIN_POLLERS, DEFAULT_MAX_POLLERS = 2, 200
NOTHING_READ = "No records processed"


def _patterns(criteria: Params) -> tuple[str, ...]:
    filters = criteria.get("Filters") or []
    if len(filters) > MAX_FILTERS:
        raise invalid(f"Filter criteria has {len(filters)} filters; the limit is {MAX_FILTERS}.")
    patterns = []
    for entry in filters:
        text = entry.get("Pattern", "")
        if len(text) > MAX_PATTERN_CHARACTERS:
            raise violation(text, "filterCriteria", "Member must have length less than or equal to 4096")
        try:
            check_filter(text)
        except PatternError as error:
            raise invalid("Invalid filter pattern definition.") from error
        patterns.append(text)
    return tuple(patterns)


def _pollers(config: Params) -> tuple[int, int] | None:
    """(minimum, maximum) of provisioned pollers; None for an empty configuration. Raises AwsError."""
    if config.get("PollerGroupName"):
        raise invalid("PollerGroupName is not supported for SQS event source mappings.")
    least, most = config.get("MinimumPollers"), config.get("MaximumPollers")
    if least is None and most is None:
        return None
    least = check_range(MIN_POLLERS if least is None else least, "provisionedPollerConfig.minimumPollers", 2, 200)
    most = max(least, DEFAULT_MAX_POLLERS) if most is None else most
    check_range(most, "provisionedPollerConfig.maximumPollers", 2, 10_000)
    if least > most:
        raise invalid("MinimumPollers must be less than or equal to MaximumPollers.")
    return least, most


def _config(params: Params, before: MappingConfig | None, source: Arn) -> MappingConfig:
    """The mapping's settings as `params` changes them; `before` is None for a new mapping. Raises AwsError."""
    changes: dict[str, Any] = {}
    fifo = source.resource.endswith(".fifo")
    if source.service == "kinesis":
        changes = stream_settings(params, before)
    elif params.get("StartingPosition") or params.get("StartingPositionTimestamp"):
        raise invalid("StartingPosition is not valid for SQS event sources.")
    for member in _STREAM_ONLY if source.service == "sqs" else ():
        if params.get(member):
            raise invalid(f"Unsupported {member} parameter for given event source mapping type.")
    if params.get("KMSKeyArn"):
        raise invalid("Preheat does not support KMSKeyArn: there is no KMS to encrypt the filter criteria with.")
    if params.get("BatchSize") is not None:
        changes["batch_size"] = check_range(params["BatchSize"], "batchSize", 1, 10_000)
    if params.get("MaximumBatchingWindowInSeconds") is not None:
        window = params["MaximumBatchingWindowInSeconds"]
        changes["window_s"] = check_range(window, "maximumBatchingWindowInSeconds", 0, 300)
    if "FilterCriteria" in params:
        changes["patterns"] = _patterns(params["FilterCriteria"] or {})
    if "ScalingConfig" in params:
        limit = (params["ScalingConfig"] or {}).get("MaximumConcurrency")
        if limit is not None:
            check_range(limit, "scalingConfig.maximumConcurrency", 2, 1_000)
        changes["maximum_concurrency"] = limit
    if "ProvisionedPollerConfig" in params:
        changes["pollers"] = _pollers(params["ProvisionedPollerConfig"] or {})
    if "FunctionResponseTypes" in params:
        types = params["FunctionResponseTypes"] or []
        if any(kind != "ReportBatchItemFailures" for kind in types):
            raise violation(
                types, "functionResponseTypes", "Member must satisfy enum value set: [ReportBatchItemFailures]"
            )
        changes["report_item_failures"] = bool(types)
    if "MetricsConfig" in params:
        metrics = (params["MetricsConfig"] or {}).get("Metrics") or []
        if any(metric != "EventCount" for metric in metrics):
            raise invalid("MetricsConfig of an event source mapping takes EventCount alone.")
        changes["metrics"] = tuple(metrics)
    config = replace(before or MappingConfig(), **changes)
    if config.pollers is not None and config.maximum_concurrency is not None:
        raise invalid("ScalingConfig and ProvisionedPollerConfig are mutually exclusive.")
    if fifo and config.batch_size > 10:
        raise invalid("Maximum batch size for FIFO queues is 10.")
    if fifo and config.window_s:
        raise invalid("Batching window is not supported for FIFO queues")
    if source.service == "sqs" and config.batch_size > 10 and config.window_s < 1:
        raise invalid("Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10")
    return config


def _answer(core: Core, mapping: Mapping, state: str | None = None) -> Params:
    config = mapping.config
    output: Params = {
        "UUID": mapping.uuid,
        "BatchSize": config.batch_size,
        "MaximumBatchingWindowInSeconds": config.window_s,
        "EventSourceArn": mapping.source_arn,
        "FunctionArn": mapping.function_arn,
        "LastModified": as_datetime(mapping.modified),
        "State": state or ("Enabled" if mapping.enabled else "Disabled"),
        "StateTransitionReason": "USER_INITIATED" if config.stream is None else "User action",
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if config.report_item_failures else [],
        "EventSourceMappingArn": mapping.arn,
    }
    if config.patterns:
        output["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in config.patterns]}
    if config.maximum_concurrency is not None:
        output["ScalingConfig"] = {"MaximumConcurrency": config.maximum_concurrency}
    if config.pollers is not None:
        least, most = config.pollers
        output["ProvisionedPollerConfig"] = {"MinimumPollers": least, "MaximumPollers": most}
    result = core.mapping_results.get(mapping.uuid)
    if result is not None or config.stream is not None:
        output["LastProcessingResult"] = result or NOTHING_READ
    output |= stream_shown(config)
    if config.metrics:
        output["MetricsConfig"] = {"Metrics": list(config.metrics)}
    return output


def _source(arn: str) -> Arn:
    """The event source that is to be polled. Raises AwsError."""
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        raise invalid("Unrecognized event source.") from None
    if parsed.service == "sqs" or (parsed.service == "kinesis" and parsed.resource.startswith("stream/")):
        return parsed
    raise invalid("Unrecognized event source. Preheat polls SQS queues and Kinesis streams.")


def _queue(ctx: Context, parsed: Arn) -> int:
    """The visibility timeout in seconds of the queue that is to be polled. Raises AwsError."""
    if parsed.scope != ctx.scope:
        raise invalid("The queue must be in the region and account of the function.")
    try:
        url = ctx.call("sqs", "GetQueueUrl", {"QueueName": parsed.resource})["QueueUrl"]
        wanted = {"QueueUrl": url, "AttributeNames": ["VisibilityTimeout"]}
        attributes = ctx.call("sqs", "GetQueueAttributes", wanted)["Attributes"]
    except AwsError as error:
        raise invalid(
            f"Error occurred while ReceiveMessage. SQS Error Code: {error.query_code or error.code}. "
            f"SQS Error Message: {error.message}"
        ) from error
    return int(attributes["VisibilityTimeout"])


def _check_role(ctx: Context, role_arn: str, function: FunctionName, source: Arn) -> None:
    """When policies are enforced: the function's role must be allowed to empty the queue, or to read the stream.
    Raises AwsError."""
    if ctx.machine.authorizer is None:
        return
    account, name = function.scope.account, role_arn.rpartition("/")[2]
    session = f"arn:aws:sts::{account}:assumed-role/{name}/{function.name}"
    known = ctx.machine.services["iam"].policies_for(ctx, Principal(session, account, "role"))
    held, actions, shown = None, READS, "Kinesis"
    if source.service == "sqs":
        url = ctx.call("sqs", "GetQueueUrl", {"QueueName": source.resource})["QueueUrl"]
        found = ctx.call("sqs", "GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["Policy"]})
        held, actions, shown = (found.get("Attributes") or {}).get("Policy"), EMPTIES, "SQS"
    for action in actions:
        request = policy.Request(
            f"{source.service}:{action}", str(source), session, account, known.principals, known.context
        )
        allowed = policy.evaluate(
            request, identity=known.identity, resource=(held,) if held else (), boundary=known.boundary
        ).allowed
        if not allowed:
            raise invalid(f"The provided execution role does not have permissions to call {action} on {shown}")


def _function_for(ctx: Context, identifier: str, source: Arn) -> FunctionName:
    """The function that is to poll the source, which must be there. Raises AwsError."""
    try:
        function = existing(ctx, {"FunctionName": identifier})
        settings = load(ctx, function).settings
        timeout = settings.timeout_s
    except AwsError as error:
        if error.code != "ResourceNotFoundException":
            raise
        raise invalid("Function does not exist") from error
    visibility_s = _queue(ctx, source) if source.service == "sqs" else None
    if visibility_s is None:
        stream_named(ctx, source)
    if visibility_s is not None and visibility_s < timeout:
        raise invalid(
            f"Queue visibility timeout: {visibility_s} seconds is less than Function timeout: {timeout} seconds"
        )
    _check_role(ctx, settings.role, function, source)
    return function


def _save(core: Core, ctx: Context, mapping: Mapping | None) -> None:
    """Write it (None: only tell) and let the poller know after the commit."""
    if mapping is not None:
        repository.save_mapping(ctx.db, mapping)

    def tell() -> None:
        core.mapping_changes += 1

    ctx.db.after_commit(tell)
    ctx.db.notify("lambda:mappings")


def create_event_source_mapping(core: Core, ctx: Context, params: Params) -> Outcome:
    check_position(params)
    arn = params.get("EventSourceArn")
    if not arn:
        raise invalid("Unrecognized event source.")
    source = _source(arn)
    function = _function_for(ctx, params["FunctionName"], source)
    config = _config(params, None, source)
    tags = check_tags(params.get("Tags") or {})
    shown = "SQS" if source.service == "sqs" else "Kinesis"
    for other in repository.mappings_of(ctx.db, ctx.scope, arn, function.arn, "", 1_000):
        if other.function_arn == function.qualified_arn:
            raise conflict(
                f'An event source mapping with {shown} arn (" {arn} ") and function (" {function.name} ") already '
                f"exists. Please update or delete the existing mapping with UUID {other.uuid}"
            )
    mapping = Mapping(
        ctx.entropy.uuid(), ctx.scope, arn, function.qualified_arn, params.get("Enabled", True), config, ctx.now, tags
    )
    _save(core, ctx, mapping)
    advise_function(ctx, function.arn)
    return Reply(_answer(core, mapping, "Creating" if mapping.enabled else "Disabled"), 202)


def _existing_mapping(ctx: Context, params: Params) -> Mapping:
    mapping = repository.mapping_of(ctx.db, params["UUID"])
    if mapping is None or mapping.scope != ctx.scope:
        raise resource_missing()
    return mapping


def get_event_source_mapping(core: Core, ctx: Context, params: Params) -> Outcome:
    return _answer(core, _existing_mapping(ctx, params))


def update_event_source_mapping(core: Core, ctx: Context, params: Params) -> Outcome:
    mapping = _existing_mapping(ctx, params)
    source = Arn.parse(mapping.source_arn)
    config = _config(params, mapping.config, source)
    function_arn = mapping.function_arn
    if params.get("FunctionName"):
        function_arn = _function_for(ctx, params["FunctionName"], source).qualified_arn
    enabled = params.get("Enabled", mapping.enabled)
    changed = replace(mapping, config=config, function_arn=function_arn, enabled=enabled, modified=ctx.now)
    _save(core, ctx, changed)
    for arn in {function_arn, mapping.function_arn}:
        advise_function(ctx, parse_name(arn, mapping.scope).arn)
    state = "Updating"
    if enabled != mapping.enabled:
        state = "Enabling" if enabled else "Disabling"
    return Reply(_answer(core, changed, state), 202)


def delete_event_source_mapping(core: Core, ctx: Context, params: Params) -> Outcome:
    mapping = _existing_mapping(ctx, params)
    repository.delete_mapping(ctx.db, mapping.uuid)
    _save(core, ctx, None)
    findings.forget(ctx.db, mapping.arn)
    advise_function(ctx, parse_name(mapping.function_arn, mapping.scope).arn)
    return Reply(_answer(core, mapping, "Deleting"), 202)


def list_event_source_mappings(core: Core, ctx: Context, params: Params) -> Outcome:
    name = params.get("FunctionName")
    function_arn = parse_name(name, ctx.scope).qualified_arn if name else None
    key, limit = page(params, 100)
    found = repository.mappings_of(ctx.db, ctx.scope, params.get("EventSourceArn"), function_arn, key, limit + 1)
    output: Params = {"EventSourceMappings": [_answer(core, mapping) for mapping in found[:limit]]}
    if len(found) > limit:
        output["NextMarker"] = marker(found[limit - 1].uuid)
    return output


OPERATIONS: dict[str, Operation] = {
    "CreateEventSourceMapping": create_event_source_mapping,
    "GetEventSourceMapping": get_event_source_mapping,
    "UpdateEventSourceMapping": update_event_source_mapping,
    "DeleteEventSourceMapping": delete_event_source_mapping,
    "ListEventSourceMappings": list_event_source_mappings,
}
