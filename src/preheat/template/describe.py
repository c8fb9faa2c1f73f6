"""Operations that only look: stacks, events, resources, templates, exports."""

import json
from datetime import UTC, datetime
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Outcome, Params
from preheat.template import repository
from preheat.template.intrinsics import pseudo_parameters
from preheat.template.naming import StackNames
from preheat.template.parameters import text_of
from preheat.template.prepare import needed_capability, read_source, source_of
from preheat.template.read import Template, invalid
from preheat.template.repository import Stack, StackResource

PAGE = 100
SUMMARY = (
    "StackId", "StackName", "CreationTime", "LastUpdatedTime", "DeletionTime", "StackStatus", "StackStatusReason",
)  # fmt: skip


def when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def existing(ctx: Context, name: str, message: str = "Stack with id {} does not exist") -> Stack:
    stack = repository.find_stack(ctx.db, ctx.scope, name)
    if stack is None:
        raise invalid(message.format(name))
    return stack


def _offset(params: Params) -> int:
    token = params.get("NextToken")
    if token is None:
        return 0
    if not token.isdigit():
        raise invalid("NextToken is invalid")
    return int(token)


def _page(key: str, items: list[Any], params: Params) -> dict[str, Any]:
    start = _offset(params)
    output: dict[str, Any] = {key: items[start : start + PAGE]}
    if len(items) > start + PAGE:
        output["NextToken"] = str(start + PAGE)
    return output


def described(stack: Stack) -> dict[str, Any]:
    """A stack as DescribeStacks shows it."""
    spec = stack.spec
    out: dict[str, Any] = {
        "StackId": stack.id,
        "StackName": stack.name,
        "CreationTime": when(stack.created_at),
        "StackStatus": stack.status,
        "DisableRollback": bool(stack.options.get("disable_rollback")),
        "NotificationARNs": spec.notification_arns if spec else [],
        "Tags": spec.tags if spec else [],
        "RollbackConfiguration": {},
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    }
    if spec is not None:
        if spec.capabilities:
            out["Capabilities"] = spec.capabilities
        if spec.parameters:
            out["Parameters"] = spec.parameters
        if spec.description:
            out["Description"] = spec.description
        if spec.role_arn:
            out["RoleARN"] = spec.role_arn
    if stack.deleted_at is None:
        out["EnableTerminationProtection"] = stack.termination_protection
        if stack.outputs:
            out["Outputs"] = stack.outputs
        if stack.change_set_id:
            out["ChangeSetId"] = stack.change_set_id
    if stack.reason:
        out["StackStatusReason"] = stack.reason
    if stack.options.get("timeout_minutes"):
        out["TimeoutInMinutes"] = stack.options["timeout_minutes"]
    if stack.updated_at is not None:
        out["LastUpdatedTime"] = when(stack.updated_at)
    deletion = stack.options.get("deletion_at") if stack.deleted_at is None else stack.deleted_at
    if deletion is not None:
        out["DeletionTime"] = when(deletion)
    return out


def describe_stacks(ctx: Context, params: Params) -> Outcome:
    name = params.get("StackName")
    if name:
        return {"Stacks": [described(existing(ctx, name))]}
    return _page("Stacks", [described(stack) for stack in repository.stacks(ctx.db, ctx.scope, False)], params)


def list_stacks(ctx: Context, params: Params) -> Outcome:
    wanted = params.get("StackStatusFilter")
    found = []
    for stack in repository.stacks(ctx.db, ctx.scope, True):
        if wanted and stack.status not in wanted:
            continue
        whole = described(stack)
        summary = {key: whole[key] for key in SUMMARY if key in whole}
        summary["DriftInformation"] = {"StackDriftStatus": "NOT_CHECKED"}
        if "Description" in whole:
            summary["TemplateDescription"] = whole["Description"]
        found.append(summary)
    return _page("StackSummaries", found, params)


def describe_stack_events(ctx: Context, params: Params) -> Outcome:
    if params.get("StackName") is None:
        raise invalid(
            "1 validation error detected: Value null at 'stackName' failed to satisfy constraint: "
            "Member must not be null"
        )
    stack = existing(ctx, params["StackName"], "Stack [{}] does not exist")
    before = _offset(params) or None
    rows = repository.events(ctx.db, stack.id, before, PAGE + 1)
    output: dict[str, Any] = {"StackEvents": [_event(row) for row in rows[:PAGE]]}
    if len(rows) > PAGE:
        output["NextToken"] = str(rows[PAGE - 1]["seq"])
    return output


def _event(row: Any) -> dict[str, Any]:
    event = {
        "StackId": row["stack_id"],
        "EventId": row["id"],
        "StackName": row["stack_name"],
        "LogicalResourceId": row["logical_id"],
        "PhysicalResourceId": row["physical_id"],
        "ResourceType": row["type"],
        "Timestamp": when(row["at"]),
        "ResourceStatus": row["status"],
    }
    optional = (
        ("ResourceStatusReason", "reason"),
        ("ResourceProperties", "properties"),
        ("ClientRequestToken", "token"),
    )
    event.update({key: row[column] for key, column in optional if row[column]})
    return event


def _shown(stack: Stack, row: StackResource, time_key: str) -> dict[str, Any]:
    out: dict[str, Any] = {
        "StackName": stack.name,
        "StackId": stack.id,
        "LogicalResourceId": row.logical_id,
        "ResourceType": row.type,
        time_key: when(row.updated_at),
        "ResourceStatus": row.status,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }
    if row.physical_id:
        out["PhysicalResourceId"] = row.physical_id
    if row.reason:
        out["ResourceStatusReason"] = row.reason
    return out


def describe_stack_resource(ctx: Context, params: Params) -> Outcome:
    stack = existing(ctx, params["StackName"], "Stack '{}' does not exist")
    row = repository.resource(ctx.db, stack.id, params["LogicalResourceId"])
    if row is None:
        raise invalid(f"Resource {params['LogicalResourceId']} does not exist for stack {stack.name}")
    detail = _shown(stack, row, "LastUpdatedTimestamp")
    detail["Metadata"] = json.dumps(_metadata(ctx, stack, row.logical_id))
    return {"StackResourceDetail": detail}


def _metadata(ctx: Context, stack: Stack, logical_id: str) -> Any:
    """A resource's Metadata with its functions carried out; as it is written where that cannot be done."""
    spec = stack.spec
    declared = {} if spec is None else (spec.body.get("Resources") or {}).get(logical_id, {}).get("Metadata") or {}
    if spec is None or not declared:
        return declared
    rows = repository.resources(ctx.db, stack.id)
    pseudo = pseudo_parameters(stack.scope, stack.id, stack.name, spec.notification_arns)
    types = ctx.machine.services["cloudformation"].types
    try:
        return spec.resolver(pseudo, StackNames(ctx, stack, types, rows)).resolve(declared)
    except AwsError:
        return declared


def describe_stack_resources(ctx: Context, params: Params) -> Outcome:
    name, physical_id = params.get("StackName"), params.get("PhysicalResourceId")
    if (name is None) == (physical_id is None):
        raise invalid("Exactly one of StackName and PhysicalResourceId must be specified")
    if name is None:
        name = repository.stack_of_physical(ctx.db, physical_id)
        if name is None:
            raise invalid(f"Stack for {physical_id} does not exist")
    stack = existing(ctx, name)
    rows = repository.resources(ctx.db, stack.id)
    wanted = params.get("LogicalResourceId")
    found = [_shown(stack, row, "Timestamp") for row in rows.values() if wanted in (None, row.logical_id)]
    return {"StackResources": found[:PAGE]}


def list_stack_resources(ctx: Context, params: Params) -> Outcome:
    stack = existing(ctx, params["StackName"])
    found = []
    for row in repository.resources(ctx.db, stack.id).values():
        item = _shown(stack, row, "LastUpdatedTimestamp")
        del item["StackName"], item["StackId"]
        found.append(item)
    return _page("StackResourceSummaries", found, params)


def get_template(ctx: Context, params: Params) -> Outcome:
    if params.get("ChangeSetName"):
        stack_name = params.get("StackName")
        if not stack_name and not params["ChangeSetName"].startswith("arn:"):
            raise invalid("StackName is a required parameter.")
        stack = existing(ctx, stack_name) if stack_name else None
        row = repository.change_set(ctx.db, stack.id if stack else None, params["ChangeSetName"])
        if row is None:
            raise AwsError("ChangeSetNotFound", f"ChangeSet [{params['ChangeSetName']}] does not exist", 404)
        spec = repository.change_set_spec(row)
    elif params.get("StackName"):
        spec = existing(ctx, params["StackName"]).spec
        if spec is None:
            raise invalid(f"Template for stack {params['StackName']} does not exist")
    else:
        raise invalid("StackName or ChangeSetName must be specified")
    processed = params.get("TemplateStage") == "Processed" and spec.transforms
    body = json.dumps(spec.body) if processed else spec.original
    stages = ["Original", "Processed"]
    return {"TemplateBody": body, "StagesAvailable": stages}


def validate_template(ctx: Context, params: Params) -> Outcome:
    def done(context: Context, value: tuple[str, Template]) -> Outcome:
        summary = summarize(value[1])
        output: dict[str, Any] = {"Parameters": []}
        if value[1].description:
            output["Description"] = value[1].description
        for item in summary["Parameters"]:
            kept = ("ParameterKey", "DefaultValue", "NoEcho", "Description")
            output["Parameters"].append({key: item[key] for key in kept if key in item})
        for key in ("Capabilities", "CapabilitiesReason", "DeclaredTransforms"):
            if key in summary:
                output[key] = summary[key]
        return output

    source = source_of(ctx, params, None)
    return ctx.offload(lambda: read_source(source), done)


def get_template_summary(ctx: Context, params: Params) -> Outcome:
    if params.get("StackSetName"):
        raise invalid("Preheat has no stack sets")
    given = [key for key in ("StackName", "TemplateBody", "TemplateURL") if params.get(key)]
    if len(given) != 1:
        raise invalid("Exactly one of StackName, TemplateBody and TemplateURL must be specified")
    if given == ["StackName"]:
        spec = existing(ctx, params["StackName"]).spec
        if spec is None:
            raise invalid("GetTemplateSummary cannot be called on REVIEW_IN_PROGRESS stacks.")
        source: Any = spec.original
    else:
        source = source_of(ctx, params, None)
    return ctx.offload(lambda: read_source(source), lambda context, value: summarize(value[1]))


def summarize(template: Template) -> dict[str, Any]:
    """What GetTemplateSummary says of a template."""
    parameters = []
    for name, rule in template.section("Parameters").items():
        item: dict[str, Any] = {
            "ParameterKey": name,
            "ParameterType": rule["Type"],
            "NoEcho": text_of(rule.get("NoEcho", False)).lower() == "true",
            "ParameterConstraints": {},
        }
        if "Default" in rule:
            item["DefaultValue"] = text_of(rule["Default"])
        if "Description" in rule:
            item["Description"] = rule["Description"]
        if "AllowedValues" in rule:
            item["ParameterConstraints"] = {"AllowedValues": [text_of(value) for value in rule["AllowedValues"]]}
        parameters.append(item)
    resources = {name: item for name, item in template.resources.items() if isinstance(item, dict) and "Type" in item}
    by_type: dict[str, list[str]] = {}
    for name, item in resources.items():
        by_type.setdefault(item["Type"], []).append(name)
    output: dict[str, Any] = {
        "Parameters": parameters,
        "ResourceTypes": [item["Type"] for item in resources.values()],
        "ResourceIdentifierSummaries": [
            {"ResourceType": kind, "LogicalResourceIds": names} for kind, names in by_type.items()
        ],
    }
    if template.body.get("AWSTemplateFormatVersion"):
        output["Version"] = template.body["AWSTemplateFormatVersion"]
    if template.description:
        output["Description"] = template.description
    if template.body.get("Metadata"):
        output["Metadata"] = json.dumps(template.body["Metadata"])
    needed, kinds = needed_capability(resources)
    if needed is not None:
        output["Capabilities"] = [needed]
        output["CapabilitiesReason"] = f"The following resource(s) require capabilities: [{', '.join(kinds)}]"
    if template.transforms:
        output["DeclaredTransforms"] = template.transforms
        output["Capabilities"] = [*output.get("Capabilities", ()), "CAPABILITY_AUTO_EXPAND"]
        reason = f"The following transform(s) require capabilities: [{', '.join(template.transforms)}]"
        output.setdefault("CapabilitiesReason", reason)
    return output


def list_exports(ctx: Context, params: Params) -> Outcome:
    found = [
        {"ExportingStackId": row["stack_id"], "Name": name, "Value": row["value"]}
        for name, row in repository.exports(ctx.db, ctx.scope).items()
    ]
    return _page("Exports", found, params)


def list_imports(ctx: Context, params: Params) -> Outcome:
    name = params["ExportName"]
    users = repository.importers(ctx.db, ctx.scope, name)
    if not users:
        raise invalid(f"Export '{name}' is not imported by any stack.")
    return _page("Imports", users, params)


OPERATIONS = {
    "DescribeStackEvents": describe_stack_events,
    "DescribeStackResource": describe_stack_resource,
    "DescribeStackResources": describe_stack_resources,
    "DescribeStacks": describe_stacks,
    "GetTemplate": get_template,
    "GetTemplateSummary": get_template_summary,
    "ListExports": list_exports,
    "ListImports": list_imports,
    "ListStackResources": list_stack_resources,
    "ListStacks": list_stacks,
    "ValidateTemplate": validate_template,
}
