"""Scheduler's rules: what a schedule may be, when it is due, what it sends."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import Violations
from preheat.services.schedules import At, Rate, ScheduleError, next_time, parse, zone
from preheat.services.schedules.retries import DEFAULT_AGE_S, DEFAULT_RETRIES

DEFAULT_GROUP = "default"
NAME = r"^[0-9a-zA-Z-_.]+$"
TOKEN = r"^[a-zA-Z0-9-_]+$"
UNIVERSAL = re.compile(r"arn:aws:scheduler:::aws-sdk:([\w-]+):(\w+)")
TARGET_KINDS = ("lambda", "sqs", "sns", "events", "states", "kinesis", "firehose")
READING = (
    "get", "describe", "list", "poll", "receive", "search", "scan", "query", "select", "read", "lookup", "discover",
    "validate", "batchGet", "batchDescribe", "batchRead", "transactGet", "adminGet", "adminList", "testMigration",
    "retrieve", "testConnection", "translateDocument", "isAuthorized", "invokeModel",
)  # fmt: skip
NOT_HERE = (
    "EcsParameters", "SageMakerPipelineParameters", "EventBridgePutEventsV2Parameters",
    "EventBridgePutRawEventsParameters",
)  # fmt: skip
ROLE = r"^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@\/-]+$"
QUEUE = r"^arn:aws[a-z-]*:sqs:[a-z0-9\-]+:\d{12}:[a-zA-Z0-9\-_]+$"
ATTRIBUTE = re.compile(r"<aws\.scheduler\.(schedule-arn|scheduled-time|execution-id|attempt-number)>")


SDK_NAMES = {"stepfunctions": "sfn", "logs": "cloudwatchlogs", "events": "eventbridge"}
"""How AWS's SDKs call a service, where that is not botocore's name without its hyphens."""
SERVICE_OF = {"states": "stepfunctions", "kinesis": "kinesis", "firehose": "firehose"}
"""The services that kinds of targets need and that a platform may be without."""
START_GRACE_S = 300


def sdk_name(service: str) -> str:
    """A service as universal targets name it, of botocore's name for it."""
    return SDK_NAMES.get(service, service.replace("-", ""))


def universal_operation(services: Mapping[str, Any], arn: str) -> tuple[str, str] | None:
    """(service, operation) of a universal target, None for what this platform does not implement."""
    name, _, wanted = arn.rpartition(":aws-sdk:")[2].partition(":")
    service = next((one for one in services if sdk_name(one) == name), None)
    operations = services[service].operations if service is not None and wanted[:1].islower() else ()
    operation = next((one for one in operations if one.lower() == wanted.lower()), None)
    return None if service is None or operation is None else (service, operation)


class Schedule(NamedTuple):
    row: int
    account: str
    region: str
    group: str
    name: str
    given: dict[str, Any]
    token: str | None
    created: float
    modified: float
    due_at: float | None
    fire_at: float | None

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return self.scope.arn("scheduler", f"schedule/{self.group}/{self.name}")


def moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)


def invalid(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def not_found(kind: str, name: str) -> AwsError:
    return AwsError("ResourceNotFoundException", f"{kind} {name} does not exist.", 404)


def conflict(kind: str, name: str) -> AwsError:
    return AwsError("ConflictException", f"{kind} {name} already exists.", 409)


def check_schedule(given: dict[str, Any], token: str | None = None) -> None:
    """Raises ValidationException. Moments are epoch seconds, `token` is the request's ClientToken."""
    _check_members({**given, "ClientToken": token})
    if given.get("KmsKeyArn"):
        raise invalid("Preheat does not implement KmsKeyArn: there is no KMS.")
    try:
        expression = parse(given["ScheduleExpression"], scheduler=True)
    except ScheduleError:
        raise invalid(f"Invalid Schedule Expression {given['ScheduleExpression']}.") from None
    try:
        zone(given.get("ScheduleExpressionTimezone", "UTC"))
    except ScheduleError:
        raise invalid("The ScheduleExpressionTimezone you provided is invalid.") from None
    end = None if isinstance(expression, At) else given.get("EndDate")
    if end is not None and end <= given.get("StartDate", 0.0):
        raise invalid("The EndDate you specify must come after the StartDate.")
    _check_window(given["FlexibleTimeWindow"])
    _check_target(given["Target"])


def _check_members(given: dict[str, Any]) -> None:
    """What the model asks of each member."""
    wrong = Violations()
    wrong.text(given, "Name", 64, NAME, 1)
    wrong.text(given, "GroupName", 64, NAME, 1)
    wrong.text(given, "ScheduleExpression", 256, least=1)
    wrong.text(given, "Description", 512)
    wrong.text(given, "ScheduleExpressionTimezone", 50, least=1)
    wrong.choice(given, "State", ("ENABLED", "DISABLED"))
    wrong.choice(given, "ActionAfterCompletion", ("NONE", "DELETE"))
    wrong.text(given, "ClientToken", 64, TOKEN, 1)
    window, target = given["FlexibleTimeWindow"], given["Target"]
    wrong.choice(window, "Mode", ("OFF", "FLEXIBLE"), "flexibleTimeWindow.mode")
    wrong.number(window, "MaximumWindowInMinutes", 1, 1_440, "flexibleTimeWindow.maximumWindowInMinutes")
    wrong.text(target, "Arn", 1_600, least=1, path="target.arn")
    wrong.text(target, "RoleArn", 1_600, ROLE, 1, "target.roleArn")
    wrong.text(target.get("DeadLetterConfig", {}), "Arn", 1_600, QUEUE, 1, "target.deadLetterConfig.arn")
    policy, path = target.get("RetryPolicy", {}), "target.retryPolicy"
    wrong.number(policy, "MaximumRetryAttempts", 0, DEFAULT_RETRIES, f"{path}.maximumRetryAttempts")
    wrong.number(policy, "MaximumEventAgeInSeconds", 60, DEFAULT_AGE_S, f"{path}.maximumEventAgeInSeconds")
    wrong.refuse()


def check_group(params: dict[str, Any]) -> None:
    """The name, tags and token of a request about a group. Raises ValidationException."""
    wrong = Violations()
    wrong.text(params, "Name", 64, NAME, 1)
    wrong.text(params, "ClientToken", 64, TOKEN, 1)
    for number, tag in enumerate(params.get("Tags", ()), 1):
        wrong.text(tag, "Key", 128, least=1, path=f"tags.{number}.member.key")
        wrong.text(tag, "Value", 256, least=1, path=f"tags.{number}.member.value")
    wrong.refuse()


def check_start(given: dict[str, Any], before: float | None, now: float) -> None:
    """Raises ValidationException for a StartDate that has passed, unless it is that of `before`; a one-time schedule
    has no use for it."""
    start = given.get("StartDate")
    if start is None or start == before or isinstance(parse(given["ScheduleExpression"], scheduler=True), At):
        return
    if start < now - START_GRACE_S:
        raise invalid("The StartDate you specify cannot be earlier than 5 minutes ago.")


def _check_window(window: dict[str, Any]) -> None:
    minutes = window.get("MaximumWindowInMinutes")
    if window["Mode"] == "FLEXIBLE":
        if minutes is None:
            raise invalid("The MaximumWindowInMinutes is required for the mode FLEXIBLE.")
    elif minutes is not None:
        raise invalid("The MaximumWindowInMinutes is only supported for the mode FLEXIBLE.")


def _check_target(target: dict[str, Any]) -> None:
    for member in NOT_HERE:
        if target.get(member):
            raise invalid(f"Preheat does not implement {member}.")
    universal = UNIVERSAL.fullmatch(target["Arn"])
    if universal is not None:
        if universal[2].startswith(READING) or not universal[2][0].islower():
            raise invalid(f"Invalid RequestJson provided. Reason The api {universal[2]} is not supported.")
        try:
            given = json.loads(target.get("Input", "{}"))
        except ValueError:
            given = None
        if not isinstance(given, dict):
            raise invalid("Invalid RequestJson provided. Reason The input is not a JSON object.")
        return
    try:
        kind = Arn.parse(target["Arn"]).service
    except ValueError:
        raise invalid(f"Provided Arn is not in correct format: {target['Arn']}") from None
    if kind not in TARGET_KINDS:
        raise invalid(f"Preheat does not deliver to {kind} targets; a universal target may do it.")
    for member, owner in (("KinesisParameters", "kinesis"), ("EventBridgeParameters", "events")):
        if kind == owner and not target.get(member):
            raise invalid(f"{member} must be given for a target of {kind}.")
    owners = {"SqsParameters": "sqs", "KinesisParameters": "kinesis", "EventBridgeParameters": "events"}
    for member, owner in owners.items():
        if kind != owner and target.get(member):
            raise invalid(f"{member} cannot be given for a target of {kind}.")
    if kind == "sqs" and target["Arn"].endswith(".fifo") and not target.get("SqsParameters", {}).get("MessageGroupId"):
        raise invalid("SqsParameters.MessageGroupId must be given for a FIFO queue.")


def shown_target(target: dict[str, Any]) -> dict[str, Any]:
    """With the retry policy that acts where none, or only a part of one, was given."""
    retries = {"MaximumEventAgeInSeconds": DEFAULT_AGE_S, "MaximumRetryAttempts": DEFAULT_RETRIES}
    return {**target, "RetryPolicy": retries | target.get("RetryPolicy", {})}


def due_after(given: dict[str, Any], modified: float, after: float) -> float | None:
    """The scheduled time after `after`, None when there is none any more. A rate counts from its StartDate, which is
    due itself, or from when the schedule was made or changed."""
    if given.get("State", "ENABLED") != "ENABLED":
        return None
    expression = parse(given["ScheduleExpression"], scheduler=True)
    timezone = zone(given.get("ScheduleExpressionTimezone", "UTC"))
    if isinstance(expression, At):
        return next_time(expression, after, timezone)
    start = given.get("StartDate")
    if start is None and isinstance(expression, Rate):
        start = modified
        after = max(after, modified)
    found = next_time(expression, after, timezone, start)
    return None if found is None or found > given.get("EndDate", float("inf")) else found


def body_of(schedule: Schedule, due_at: float, execution: str) -> str:
    """What the target is sent."""
    at = moment(due_at).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = schedule.given["Target"].get("Input")
    if text is None:
        if UNIVERSAL.fullmatch(schedule.given["Target"]["Arn"]):
            return "{}"
        return json.dumps(
            {
                "version": "0", "id": execution, "detail-type": "Scheduled Event", "source": "aws.scheduler",
                "account": schedule.account, "time": at, "region": schedule.region, "resources": [schedule.arn],
                "detail": "{}",
            }
        )  # fmt: skip
    values = {
        "schedule-arn": schedule.arn, "scheduled-time": at, "execution-id": execution, "attempt-number": "1"
    }  # fmt: skip
    return ATTRIBUTE.sub(lambda found: values[found[1]], text)
