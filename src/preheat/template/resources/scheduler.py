"""AWS::Scheduler: schedules and their groups."""

from typing import Any

from preheat.template.definition import Call, Made, Resource, ResourceType, Script, properties, tag_map, unused

SCHEDULE = (
    "Description", "EndDate", "FlexibleTimeWindow", "GroupName", "KmsKeyArn", "ScheduleExpression",
    "ScheduleExpressionTimezone", "StartDate", "State", "Target",
)  # fmt: skip


def _where(resource: Resource) -> dict[str, Any]:
    return {"Name": resource.physical_id or resource.name, **resource.pick("GroupName")}


def create_schedule(resource: Resource) -> Script:
    yield from unused(Call("scheduler", "GetSchedule", _where(resource)), resource.type, resource.name)
    params = {"Name": resource.name, **resource.pick(*SCHEDULE)}
    made = yield Call("scheduler", "CreateSchedule", params, ("ScheduleArn",))
    yield Made(resource.name)
    return {"Arn": made["ScheduleArn"]}


def update_schedule(resource: Resource) -> Script:
    yield Call("scheduler", "UpdateSchedule", {"Name": resource.physical_id, **resource.pick(*SCHEDULE)})
    return resource.attributes


def delete_schedule(resource: Resource) -> Script:
    yield Call("scheduler", "DeleteSchedule", _where(resource))
    return {}


def create_group(resource: Resource) -> Script:
    tags = [{"Key": key, "Value": value} for key, value in tag_map(resource.get("Tags")).items()]
    params = {"Name": resource.name, **({"Tags": tags} if tags else {})}
    made = yield Call("scheduler", "CreateScheduleGroup", params, ("ScheduleGroupArn",))
    yield Made(resource.name)
    return {"Arn": made["ScheduleGroupArn"], "State": "ACTIVE"}


def update_group(resource: Resource) -> Script:
    arn = resource.attributes["Arn"]
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("scheduler", "UntagResource", {"ResourceArn": arn, "TagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        tags = [{"Key": key, "Value": value} for key, value in new.items()]
        yield Call("scheduler", "TagResource", {"ResourceArn": arn, "Tags": tags})
    return resource.attributes


def delete_group(resource: Resource) -> Script:
    yield Call("scheduler", "DeleteScheduleGroup", {"Name": resource.physical_id})
    return {}


TYPES = (
    ResourceType(
        "AWS::Scheduler::Schedule",
        properties(
            "Description EndDate FlexibleTimeWindow GroupName Name ScheduleExpression ScheduleExpressionTimezone "
            "StartDate State Target",
            replaces="Name GroupName",
            required="FlexibleTimeWindow ScheduleExpression Target",
            approximates={"KmsKeyArn": "there is no KMS: a value is refused"},
        ),
        create_schedule, delete_schedule, update_schedule,
        attributes=("Arn",), name_property="Name",
    ),
    ResourceType(
        "AWS::Scheduler::ScheduleGroup",
        properties("Name Tags", replaces="Name"),
        create_group, delete_group, update_group,
        attributes=("Arn", "State"), name_property="Name", tags="list",
    ),
)  # fmt: skip
