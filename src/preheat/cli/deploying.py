"""Deploying a template to the platform: local code directories stay where they are and are watched."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.cli.clients import Platform, fail

LOCAL_BUCKET = "preheat-local"
DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
POLL_S = 0.05
LONGEST_S = 600
CODE_PROPERTIES = {
    "AWS::Serverless::Function": ("CodeUri", "Bucket", "Key"),
    "AWS::Serverless::LayerVersion": ("ContentUri", "Bucket", "Key"),
    "AWS::Lambda::Function": ("Code", "S3Bucket", "S3Key"),
    "AWS::Lambda::LayerVersion": ("Content", "S3Bucket", "S3Key"),
}
OnEvent = Callable[[dict[str, Any]], None]


def find_template(path: Path) -> Path:
    """The template named by a file or a directory."""
    found = path if path.is_file() else template_in(path)
    return found or fail(f"there is no template at {path}; give a template file, or a directory with template.yaml")


def template_in(directory: Path) -> Path | None:
    names = ("template.yaml", "template.yml", "template.json")
    return next((directory / name for name in names if (directory / name).is_file()), None)


def local_template(path: Path) -> str:
    """The template as JSON, every local code path turned into the platform's local bucket."""
    from preheat.kernel.errors import AwsError
    from preheat.template.read import parse

    try:
        document = parse(path.read_text())
    except AwsError as error:
        fail(f"{path}: {error.message}")
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    base = path.absolute().parent
    globals_ = document.get("Globals", {}).get("Function", {})
    if isinstance(globals_.get("CodeUri"), str):
        globals_["CodeUri"] = _place(base, globals_["CodeUri"], "Bucket", "Key")
    for resource in document.get("Resources", {}).values():
        names = CODE_PROPERTIES.get(resource.get("Type", "")) if isinstance(resource, dict) else None
        if names is None:
            continue
        name, bucket, key = names
        properties = resource.setdefault("Properties", {})
        if isinstance(properties.get(name), str):
            properties[name] = _place(base, properties[name], bucket, key)
        if name == "CodeUri":
            _mark(properties, globals_)
    return json.dumps(document)


def _mark(properties: dict[str, Any], shared: dict[str, Any]) -> None:
    """Local code behind AutoPublishAlias: what it holds now is part of its place, so that an edit is a change of the
    template and publishes a version, as an upload would on AWS. `shared`: the Globals."""
    from preheat.services.awslambda.code import fingerprint

    code = properties.get("CodeUri") or shared.get("CodeUri")
    aliased = properties.get("AutoPublishAlias") or shared.get("AutoPublishAlias")
    if aliased and isinstance(code, dict) and code.get("Bucket") == LOCAL_BUCKET:
        properties["CodeUri"] = {**code, "Version": fingerprint(Path(code["Key"]))}


def _place(base: Path, text: str, bucket: str, key: str) -> Any:
    if text.startswith("s3://"):
        return text
    folder = (base / text).resolve()
    if not folder.is_dir():
        fail(f"the code directory {folder} does not exist")
    return {bucket: LOCAL_BUCKET, key: str(folder)}


def deploy(
    platform: Platform,
    template: Path,
    stack: str,
    parameters: dict[str, str],
    on_event: OnEvent,
    *,
    on_plan: Callable[[int], None] = lambda count: None,
    strict: bool = False,
) -> bool:
    """Create or update the stack through a change set; True when something changed. `on_plan` is told how many
    resources will change. Ends the command on failure, and with `strict` when a property of the template would be
    ignored."""
    from botocore.exceptions import ClientError

    client = platform.client("cloudformation")
    body = local_template(template)
    exists = _exists(client, stack)
    name = f"preheat-{int(time.time() * 1000)}"
    try:
        client.create_change_set(
            StackName=stack,
            ChangeSetName=name,
            ChangeSetType="UPDATE" if exists else "CREATE",
            TemplateBody=body,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
    except ClientError as error:
        fail(f"{template}: {error.response['Error']['Message']}")
    change = _wait(
        lambda: client.describe_change_set(StackName=stack, ChangeSetName=name),
        lambda found: found["Status"] in ("CREATE_COMPLETE", "FAILED"),
    )
    if change["Status"] == "FAILED":
        reason = change.get("StatusReason", "")
        client.delete_change_set(StackName=stack, ChangeSetName=name)
        if "didn't contain changes" in reason or "No updates" in reason:
            return False
        fail(f"{template}: {reason}")
    ignored = [row for row in platform.fidelity(stack, name) if row["effect"] == "ignored"] if strict else []
    if ignored:
        client.delete_change_set(StackName=stack, ChangeSetName=name)
        lines = [f"{row['logical_id']} ({row['type']}) {row['property']}: {row['why']}" for row in ignored]
        fail("--strict: these properties would not act\n  " + "\n  ".join(lines))
    on_plan(len(change["Changes"]))
    client.execute_change_set(StackName=stack, ChangeSetName=name)
    _follow(client, stack, on_event)
    return True


def _exists(client: Any, stack: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        status = client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except ClientError:
        return False
    if status == "ROLLBACK_COMPLETE":
        client.delete_stack(StackName=stack)
        client.get_waiter("stack_delete_complete").wait(StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        return False
    return status != "REVIEW_IN_PROGRESS"


def _follow(client: Any, stack: str, on_event: OnEvent) -> None:
    """Tell every stack event until the deployment has ended."""
    seen: set[str] = set()
    end = time.monotonic() + LONGEST_S
    failures: list[str] = []
    started = False
    while time.monotonic() < end:
        events = client.describe_stack_events(StackName=stack)["StackEvents"]
        if not started:
            first = next((n for n, one in enumerate(events) if _begins(one, stack)), len(events) - 1)
            seen = {one["EventId"] for one in events[first + 1 :]}
            started = True
        for event in reversed(events):
            if event["EventId"] not in seen:
                seen.add(event["EventId"])
                on_event(event)
                if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason"):
                    failures.append(f"{event['LogicalResourceId']}: {event['ResourceStatusReason']}")
        status = client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        if not status.endswith("_IN_PROGRESS"):
            if status in DONE:
                return
            fail(f"the stack {stack} ended in {status}\n  " + "\n  ".join(failures))
        time.sleep(POLL_S)
    fail(f"the stack {stack} did not finish within {LONGEST_S} s")


def _begins(event: dict[str, Any], stack: str) -> bool:
    beginnings = ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS")
    return event["LogicalResourceId"] == stack and event["ResourceStatus"] in beginnings


def _wait(ask: Callable[[], dict[str, Any]], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + LONGEST_S
    while True:
        found = ask()
        if done(found) or time.monotonic() > end:
            return found
        time.sleep(POLL_S)
