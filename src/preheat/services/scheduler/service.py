"""EventBridge Scheduler: schedules in groups, and the loop that fires them."""

import base64
import binascii
import json
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import check_choice, check_number, check_text
from preheat.services.contract import Context, Loop, Operation, Outcome, Params, Platform
from preheat.services.deliveries import Counts, Delivery, emit
from preheat.services.scheduler import domain
from preheat.services.scheduler.domain import DEFAULT_GROUP, Schedule, moment
from preheat.services.schedules.retries import ladder
from preheat.store.database import Database

TOPIC = "scheduler:schedules"
GROUPS = "scheduler:groups"
NAMESPACE = "AWS/Scheduler"
SERVICE = "scheduler.amazonaws.com"
FIRES_PER_STEP = 100
DELETED_PER_STEP = 500
MOMENTS = ("StartDate", "EndDate")
GIVEN = (
    "Name", "GroupName", "ScheduleExpression", "StartDate", "EndDate", "Description", "ScheduleExpressionTimezone",
    "State", "KmsKeyArn", "Target", "FlexibleTimeWindow", "ActionAfterCompletion",
)  # fmt: skip
_COLUMNS = "row, account, region, schedule_group, name, given, token, created, modified, due_at, fire_at"


def _schedule(row: Any) -> Schedule:
    return Schedule(*row[:5], json.loads(row[5]), *row[6:])


def _find(db: Database, scope: Scope, group: str, name: str) -> Schedule | None:
    row = db.one(
        f"SELECT {_COLUMNS} FROM scheduler_schedules WHERE account = ? AND region = ? AND schedule_group = ?"
        " AND name = ?",
        *scope, group, name,
    )  # fmt: skip
    return None if row is None else _schedule(row)


def _given(params: Params) -> Params:
    kept = {name: params[name] for name in GIVEN if params.get(name) is not None}
    return {name: value.timestamp() if name in MOMENTS else value for name, value in kept.items()}


def _page(items: list[Params], params: Params, member: str, key: str) -> Params:
    check_number(params, "MaxResults", 1, 100)
    limit, after = params.get("MaxResults", 100), ""
    if params.get("NextToken"):
        try:
            after = base64.urlsafe_b64decode(params["NextToken"].encode()).decode()
        except (binascii.Error, ValueError):
            raise domain.invalid("Invalid NextToken provided.") from None
    rest = [item for item in items if item[key] > after]
    output: Params = {member: rest[:limit]}
    if len(rest) > limit:
        output["NextToken"] = base64.urlsafe_b64encode(rest[limit - 1][key].encode()).decode()
    return output


def _check_target(ctx: Context, target: Params) -> None:
    """Raises ValidationException for an operation or a service that is not here and, when policies are enforced, for a
    role that Scheduler may not assume."""
    services = ctx.machine.services
    universal = domain.UNIVERSAL.fullmatch(target["Arn"])
    if universal is not None and domain.universal_operation(services, target["Arn"]) is None:
        text = f"Preheat does not implement {universal[1]}:{universal[2]}."
        if universal[1] in services and domain.sdk_name(universal[1]) != universal[1]:
            text += f" The SDKs call the service {domain.sdk_name(universal[1])}."
        raise domain.invalid(f"Invalid RequestJson provided. Reason {text}")
    kind = target["Arn"].split(":", 3)[2]
    if domain.SERVICE_OF.get(kind, kind) not in services and kind in domain.SERVICE_OF:
        name = domain.SERVICE_OF[kind]
        raise domain.invalid(f"Preheat does not implement {name}: nothing can reach {target['Arn']}.")
    if ctx.machine.authorizer is None:
        return
    try:
        found = ctx.call("iam", "GetRole", {"RoleName": target["RoleArn"].rpartition("/")[2]})["Role"]
    except AwsError:
        found = {}
    trust = unquote(str(found.get("AssumeRolePolicyDocument", "")))
    if f'"{SERVICE}"' not in trust:
        raise domain.invalid("The execution role you provide must allow AWS EventBridge Scheduler to assume the role.")


class Firing:
    """Fires schedules at their times. Those that passed while no server ran count once, as the latest of them."""

    name = "scheduler"
    topics = (TOPIC,)

    def __init__(self) -> None:
        self._alive_since: float | None = None

    def step(self, ctx: Context) -> float | None:
        if self._alive_since is None:
            self._alive_since = ctx.now
        rows = ctx.db.all(
            f"SELECT {_COLUMNS} FROM scheduler_schedules WHERE fire_at <= ? ORDER BY fire_at, row LIMIT ?",
            ctx.now, FIRES_PER_STEP,
        )  # fmt: skip
        for row in rows:
            self._fire(ctx, _schedule(row))
        return ctx.db.value("SELECT min(fire_at) FROM scheduler_schedules WHERE fire_at IS NOT NULL")

    def _fire(self, ctx: Context, schedule: Schedule) -> None:
        due_at, alive = schedule.due_at or ctx.now, self._alive_since or 0.0
        following = domain.due_after(schedule.given, schedule.modified, due_at)
        while due_at < alive and following is not None and following <= alive:
            due_at, following = following, domain.due_after(schedule.given, schedule.modified, following)
        _send(ctx, schedule, due_at)
        if following is None and schedule.given.get("ActionAfterCompletion") == "DELETE":
            ctx.db.run("DELETE FROM scheduler_schedules WHERE row = ?", schedule.row)
            return
        plan(ctx, schedule, following)


class Emptying:
    """Takes the schedules of deleted groups away, a bounded number at a time, then the groups."""

    name = "scheduler-groups"
    topics = (GROUPS,)

    def step(self, ctx: Context) -> float | None:
        row = ctx.db.one(
            "SELECT account, region, name FROM scheduler_group_notes WHERE deleting IS NOT NULL"
            " ORDER BY deleting LIMIT 1"
        )
        if row is None:
            return None
        gone = ctx.db.run(
            "DELETE FROM scheduler_schedules WHERE row IN (SELECT row FROM scheduler_schedules WHERE account = ?"
            " AND region = ? AND schedule_group = ? LIMIT ?)",
            *row, DELETED_PER_STEP,
        )  # fmt: skip
        if gone < DELETED_PER_STEP:
            for table in ("scheduler_groups", "scheduler_group_notes"):
                ctx.db.run(f"DELETE FROM {table} WHERE account = ? AND region = ? AND name = ?", *row)
        return ctx.now


def plan(ctx: Context, schedule: Schedule, due_at: float | None) -> None:
    """When it fires next; in a flexible window that is a moment by chance."""
    minutes = schedule.given["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0)
    fire_at = None if due_at is None else due_at + (minutes * 60.0 * ctx.entropy.uniform() if minutes else 0.0)
    ctx.db.run("UPDATE scheduler_schedules SET due_at = ?, fire_at = ? WHERE row = ?", due_at, fire_at, schedule.row)
    ctx.db.notify(TOPIC)


def _send(ctx: Context, schedule: Schedule, due_at: float) -> None:
    target, execution = schedule.given["Target"], ctx.entropy.uuid()
    bridge = target.get("EventBridgeParameters", {})
    options: Params = {}
    if bridge:
        options = {"source": bridge["Source"], "detail-type": bridge["DetailType"], "resources": [schedule.arn]}
    elif target.get("KinesisParameters"):
        options = {"partition_key": target["KinesisParameters"]["PartitionKey"]}
    dimensions = {"ScheduleGroup": schedule.group}
    record = partial(ctx.machine.meter.record, schedule.scope, NAMESPACE, "InvocationAttemptCount", **dimensions)
    ctx.db.after_commit(record)
    emit(
        ctx,
        Delivery(
            target["Arn"],
            domain.body_of(schedule, due_at, execution),
            source_arn=schedule.arn,
            source_service=SERVICE,
            role=target["RoleArn"],
            message_group_id=target.get("SqsParameters", {}).get("MessageGroupId"),
            options=options,
            ladder=ladder(target.get("RetryPolicy", {})),
            dead_letter=target.get("DeadLetterConfig", {}).get("Arn"),
            dead_letter_attributes={
                "SCHEDULE_ARN": ("String", schedule.arn), "TARGET_ARN": ("String", target["Arn"]),
                "SCHEDULED_TIME": ("String", moment(due_at).strftime("%Y-%m-%dT%H:%M:%SZ")),
                "EXECUTION_ID": ("String", execution), "IS_PAYLOAD_TRUNCATED": ("String", "false"),
            },
            dead_letter_style="events",
            counts=Counts(
                NAMESPACE, dimensions, failed="TargetErrorCount", retried="InvocationAttemptCount",
                dead_lettered="InvocationsSentToDeadLetterCount",
                dead_letter_failed="InvocationsFailedToBeSentToDeadLetterCount",
            ),
        ),
    )  # fmt: skip


class SchedulerService:
    name = "scheduler"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self) -> None:
        self.loops: tuple[Loop, ...] = (Firing(), Emptying())
        self.operations: dict[str, Operation] = {
            "CreateSchedule": self.create_schedule,
            "UpdateSchedule": self.update_schedule,
            "GetSchedule": self.get_schedule,
            "ListSchedules": self.list_schedules,
            "DeleteSchedule": self.delete_schedule,
            "CreateScheduleGroup": self.create_schedule_group,
            "GetScheduleGroup": self.get_schedule_group,
            "ListScheduleGroups": self.list_schedule_groups,
            "DeleteScheduleGroup": self.delete_schedule_group,
            "TagResource": self.tag_resource,
            "UntagResource": self.untag_resource,
            "ListTagsForResource": self.list_tags_for_resource,
        }

    # -- schedules --------------------------------------------------------------------------------------------------

    def create_schedule(self, ctx: Context, params: Params) -> Outcome:
        given, token = _given(params), params.get("ClientToken")
        domain.check_schedule(given, params.get("ClientToken"))
        _check_target(ctx, given["Target"])
        group = self._group(ctx, params.get("GroupName"))[0]
        self._check_open(ctx, group)
        present = _find(ctx.db, ctx.scope, group, params["Name"])
        if present is not None:
            if token is not None and present.token == token and present.given == given:
                return {"ScheduleArn": present.arn}
            raise domain.conflict("Schedule", params["Name"])
        domain.check_start(given, None, ctx.now)
        ctx.db.insert(
            "INSERT INTO scheduler_schedules (account, region, schedule_group, name, given, token, created, modified)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *ctx.scope, group, params["Name"], json.dumps(given), token, ctx.now, ctx.now,
        )  # fmt: skip
        return self._planned(ctx, group, params["Name"])

    def _planned(self, ctx: Context, group: str, name: str) -> Params:
        schedule = _find(ctx.db, ctx.scope, group, name)
        if schedule is None:
            raise domain.not_found("Schedule", name)
        plan(ctx, schedule, domain.due_after(schedule.given, schedule.modified, ctx.now))
        return {"ScheduleArn": schedule.arn}

    def _found(self, ctx: Context, params: Params) -> Schedule:
        check_text(params, "Name", 64, domain.NAME, 1)
        group = self._group(ctx, params.get("GroupName"))[0]
        found = _find(ctx.db, ctx.scope, group, params["Name"])
        if found is None:
            raise domain.not_found("Schedule", params["Name"])
        return found

    def update_schedule(self, ctx: Context, params: Params) -> Outcome:
        """What is not given is as in a new schedule."""
        given = _given(params)
        domain.check_schedule(given, params.get("ClientToken"))
        _check_target(ctx, given["Target"])
        found = self._found(ctx, params)
        domain.check_start(given, found.given.get("StartDate"), ctx.now)
        ctx.db.run(
            "UPDATE scheduler_schedules SET given = ?, modified = ? WHERE row = ?",
            json.dumps(given), ctx.now, found.row,
        )  # fmt: skip
        return self._planned(ctx, found.group, found.name)

    def get_schedule(self, ctx: Context, params: Params) -> Outcome:
        found = self._found(ctx, params)
        shown = {name: moment(value) if name in MOMENTS else value for name, value in found.given.items()}
        shown["Target"] = domain.shown_target(found.given["Target"])
        return {
            "Arn": found.arn, "ScheduleExpressionTimezone": "UTC", "State": "ENABLED", "ActionAfterCompletion": "NONE",
            **shown, "GroupName": found.group, "CreationDate": moment(found.created),
            "LastModificationDate": moment(found.modified),
        }  # fmt: skip

    def list_schedules(self, ctx: Context, params: Params) -> Outcome:
        check_choice(params, "State", ("ENABLED", "DISABLED"))
        group = self._group(ctx, params["GroupName"])[0] if params.get("GroupName") else None
        rows = ctx.db.all(
            f"SELECT {_COLUMNS} FROM scheduler_schedules WHERE account = ? AND region = ?"
            " ORDER BY schedule_group, name",
            *ctx.scope,
        )  # fmt: skip
        items = [
            {
                "Arn": one.arn, "Name": one.name, "GroupName": one.group, "State": one.given.get("State", "ENABLED"),
                "CreationDate": moment(one.created), "LastModificationDate": moment(one.modified),
                "Target": {"Arn": one.given["Target"]["Arn"]},
            }
            for one in map(_schedule, rows)
            if group in (None, one.group)
            and one.name.startswith(params.get("NamePrefix", ""))
            and params.get("State") in (None, one.given.get("State", "ENABLED"))
        ]  # fmt: skip
        return _page(sorted(items, key=lambda item: item["Arn"]), params, "Schedules", "Arn")

    def delete_schedule(self, ctx: Context, params: Params) -> Outcome:
        ctx.db.run("DELETE FROM scheduler_schedules WHERE row = ?", self._found(ctx, params).row)
        return {}

    # -- groups -----------------------------------------------------------------------------------------------------

    def _group(self, ctx: Context, name: str | None) -> tuple[str, dict[str, str], float, float]:
        """(name, tags, created, modified). Raises ResourceNotFoundException."""
        check_text({"GroupName": name}, "GroupName", 64, domain.NAME, 1)
        name = name or DEFAULT_GROUP
        row = ctx.db.one(
            "SELECT tags, created, modified FROM scheduler_groups WHERE account = ? AND region = ? AND name = ?",
            *ctx.scope, name,
        )  # fmt: skip
        if row is not None:
            return name, json.loads(row[0]), row[1], row[2]
        if name != DEFAULT_GROUP:
            raise domain.not_found("Schedule group", name)
        return name, {}, 0.0, 0.0

    def _noted(self, ctx: Context, name: str) -> tuple[str | None, float | None]:
        """(the token of the request that made a group, since when it is being deleted)."""
        row = ctx.db.one(
            "SELECT token, deleting FROM scheduler_group_notes WHERE account = ? AND region = ? AND name = ?",
            *ctx.scope, name,
        )  # fmt: skip
        return (None, None) if row is None else (row[0], row[1])

    def _check_open(self, ctx: Context, name: str) -> None:
        """Raises ConflictException for a group that is being deleted."""
        if self._noted(ctx, name)[1] is not None:
            raise AwsError("ConflictException", f"Schedule group {name} is being deleted.", 409)

    def _put_group(self, ctx: Context, name: str, tags: dict[str, str], created: float) -> None:
        if len(tags) > 200:
            raise domain.invalid("A schedule group can have at most 200 tags.")
        values = (name, json.dumps(tags), created, ctx.now)
        ctx.db.run("INSERT OR REPLACE INTO scheduler_groups VALUES (?, ?, ?, ?, ?, ?)", *ctx.scope, *values)

    def _group_arn(self, ctx: Context, name: str) -> str:
        return ctx.scope.arn("scheduler", f"schedule-group/{name}")

    def create_schedule_group(self, ctx: Context, params: Params) -> Outcome:
        domain.check_group(params)
        name = params["Name"]
        tags, token = {tag["Key"]: tag["Value"] for tag in params.get("Tags", ())}, params.get("ClientToken")
        there = ctx.db.value(
            "SELECT tags FROM scheduler_groups WHERE account = ? AND region = ? AND name = ?", *ctx.scope, name
        )
        if there is not None or name == DEFAULT_GROUP:
            known, deleting = self._noted(ctx, name)
            if token is None or token != known or deleting is not None or json.loads(there) != tags:
                raise domain.conflict("Schedule group", name)
            return {"ScheduleGroupArn": self._group_arn(ctx, name)}
        self._put_group(ctx, name, tags, ctx.now)
        ctx.db.run("INSERT OR REPLACE INTO scheduler_group_notes VALUES (?, ?, ?, ?, NULL)", *ctx.scope, name, token)
        return {"ScheduleGroupArn": self._group_arn(ctx, name)}

    def _shown_group(self, ctx: Context, name: str, created: float, modified: float) -> Params:
        return {
            "Arn": self._group_arn(ctx, name), "Name": name,
            "State": "ACTIVE" if self._noted(ctx, name)[1] is None else "DELETING",
            "CreationDate": moment(created), "LastModificationDate": moment(modified),
        }  # fmt: skip

    def get_schedule_group(self, ctx: Context, params: Params) -> Outcome:
        name, _, created, modified = self._group(ctx, params["Name"])
        return self._shown_group(ctx, name, created, modified)

    def list_schedule_groups(self, ctx: Context, params: Params) -> Outcome:
        rows = ctx.db.all(
            "SELECT name, created, modified FROM scheduler_groups WHERE account = ? AND region = ?", *ctx.scope
        )
        known = {row[0]: (row[1], row[2]) for row in rows}
        known.setdefault(DEFAULT_GROUP, (0.0, 0.0))
        prefix = params.get("NamePrefix", "")
        items = [self._shown_group(ctx, name, *known[name]) for name in sorted(known) if name.startswith(prefix)]
        return _page(items, params, "ScheduleGroups", "Name")

    def delete_schedule_group(self, ctx: Context, params: Params) -> Outcome:
        """It is DELETING until `Emptying` has taken its schedules away."""
        name = self._group(ctx, params["Name"])[0]
        if name == DEFAULT_GROUP:
            raise domain.invalid("The default schedule group cannot be deleted.")
        ctx.db.run(
            "INSERT INTO scheduler_group_notes VALUES (?, ?, ?, NULL, ?) ON CONFLICT (account, region, name)"
            " DO UPDATE SET deleting = coalesce(deleting, excluded.deleting)",
            *ctx.scope, name, ctx.now,
        )  # fmt: skip
        ctx.db.notify(GROUPS)
        return {}

    def _tagged(self, ctx: Context, params: Params) -> tuple[str, dict[str, str], float]:
        text = params["ResourceArn"]
        resource = Arn.parse(text).resource if text.count(":") > 4 else ""
        if not resource.startswith("schedule-group/"):
            raise domain.invalid("Only schedule groups can be tagged.")
        name, tags, created, _ = self._group(ctx, resource.removeprefix("schedule-group/"))
        return name, tags, created

    def tag_resource(self, ctx: Context, params: Params) -> Outcome:
        domain.check_group(params)
        name, tags, created = self._tagged(ctx, params)
        self._check_open(ctx, name)
        self._put_group(ctx, name, tags | {tag["Key"]: tag["Value"] for tag in params["Tags"]}, created)
        return {}

    def untag_resource(self, ctx: Context, params: Params) -> Outcome:
        name, tags, created = self._tagged(ctx, params)
        kept = {key: value for key, value in tags.items() if key not in params["TagKeys"]}
        self._put_group(ctx, name, kept, created)
        return {}

    def list_tags_for_resource(self, ctx: Context, params: Params) -> Outcome:
        tags = self._tagged(ctx, params)[1]
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def build(platform: Platform) -> SchedulerService:
    return SchedulerService()
