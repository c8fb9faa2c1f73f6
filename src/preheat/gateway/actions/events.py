"""Rules of EventBridge and EventBridge Scheduler."""

from preheat.gateway.actions.need import Need, Resources, Rule, anything, both, each, given, on, when
from preheat.services.contract import Context, Params
from preheat.services.events import connections
from preheat.services.events.domain import bus_arn, bus_named, rule_arn


def _bus(member: str) -> Resources:
    def resources(ctx: Context, params: Params) -> list[str]:
        bus = bus_named(ctx.scope, params.get(member))
        return [bus_arn(*bus)]

    return resources


def _rule(member: str) -> Resources:
    def resources(ctx: Context, params: Params) -> list[str]:
        scope, bus = bus_named(ctx.scope, params.get("EventBusName"))
        return [rule_arn(scope, bus, params[member])]

    return resources


def _named(kind: str, member: str) -> Resources:
    return lambda ctx, params: [ctx.scope.arn("events", f"{kind}/{params[member]}")]


def _connection(ctx: Context, params: Params) -> list[str]:
    found = connections.connection(ctx.db, "name", ctx.scope, params["Name"])
    return [ctx.scope.arn("events", f"connection/{params['Name']}/*") if found is None else found.arn]


def _destination(ctx: Context, params: Params) -> list[str]:
    found = connections.destination(ctx.db, "name", ctx.scope, params["Name"])
    return [ctx.scope.arn("events", f"api-destination/{params['Name']}/*") if found is None else found.arn]


def _put_events(ctx: Context, params: Params) -> list[Need]:
    """Each bus that an entry names, with the event's source and detail type."""
    return [
        Need(
            "events:PutEvents",
            bus_arn(*bus_named(ctx.scope, entry.get("EventBusName"))),
            {
                key: [entry[member]]
                for key, member in (("events:source", "Source"), ("events:detail-type", "DetailType"))
                if entry.get(member)
            },
        )
        for entry in params["Entries"]
    ]


def _passed_roles(ctx: Context, params: Params) -> list[Need]:
    """The roles that targets act as are passed to EventBridge."""
    passed = {"iam:passedtoservice": ["events.amazonaws.com"]}
    return [
        Need("iam:PassRole", target["RoleArn"], passed) for target in params["Targets"] if target.get("RoleArn")
    ]


def events_rules() -> dict[str, Rule]:
    rule_tags = when("Tags", on("events:TagResource", _rule("Name")))
    bus_tags = when("Tags", on("events:TagResource", _bus("Name")))
    passed = when("RoleArn", lambda ctx, params: [
        Need("iam:PassRole", params["RoleArn"], {"iam:passedtoservice": ["events.amazonaws.com"]})
    ])  # fmt: skip
    connection_names = "CreateConnection UpdateConnection DescribeConnection DeauthorizeConnection DeleteConnection"
    destination_names = "CreateApiDestination UpdateApiDestination DescribeApiDestination DeleteApiDestination"
    archives = "CreateArchive UpdateArchive DescribeArchive DeleteArchive"
    lists = (
        "ListEventBuses ListRules ListRuleNamesByTarget ListArchives ListReplays ListConnections ListApiDestinations "
        "TestEventPattern"
    )
    return {
        **each("events", _rule("Name"), "DescribeRule DeleteRule EnableRule DisableRule"),
        **each("events", _rule("Rule"), "RemoveTargets ListTargetsByRule"),
        **each("events", _bus("Name"), "DescribeEventBus UpdateEventBus DeleteEventBus"),
        **each("events", _bus("EventBusName"), "PutPermission RemovePermission"),
        **each("events", _connection, connection_names),
        **each("events", _destination, destination_names),
        **each("events", _named("archive", "ArchiveName"), archives),
        **each("events", _named("replay", "ReplayName"), "StartReplay DescribeReplay CancelReplay"),
        **each("events", anything, lists),
        **each("events", given("ResourceARN"), "TagResource UntagResource ListTagsForResource"),
        "CreateEventBus": both(on("events:CreateEventBus", _bus("Name")), bus_tags),
        "PutRule": both(on("events:PutRule", _rule("Name")), passed, rule_tags),
        "PutTargets": both(on("events:PutTargets", _rule("Rule")), _passed_roles),
        "PutEvents": _put_events,
    }


# -- Scheduler ---------------------------------------------------------------------------------------------------------


def _schedule(ctx: Context, params: Params) -> list[str]:
    return [ctx.scope.arn("scheduler", f"schedule/{params.get('GroupName') or 'default'}/{params['Name']}")]


def _schedule_group(ctx: Context, params: Params) -> list[str]:
    return [ctx.scope.arn("scheduler", f"schedule-group/{params['Name']}")]


def _passed_role(ctx: Context, params: Params) -> list[Need]:
    passed = {"iam:passedtoservice": ["scheduler.amazonaws.com"]}
    return [Need("iam:PassRole", params["Target"]["RoleArn"], passed)]


def scheduler_rules() -> dict[str, Rule]:
    tags = when("Tags", on("scheduler:TagResource", _schedule_group))
    return {
        **each("scheduler", _schedule, "GetSchedule DeleteSchedule"),
        "CreateSchedule": both(on("scheduler:CreateSchedule", _schedule), _passed_role),
        "UpdateSchedule": both(on("scheduler:UpdateSchedule", _schedule), _passed_role),
        **each("scheduler", _schedule_group, "GetScheduleGroup DeleteScheduleGroup"),
        "CreateScheduleGroup": both(on("scheduler:CreateScheduleGroup", _schedule_group), tags),
        **each("scheduler", anything, "ListSchedules ListScheduleGroups"),
        **each("scheduler", given("ResourceArn"), "TagResource UntagResource ListTagsForResource"),
    }
