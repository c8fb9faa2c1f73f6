"""Commands that look at a running platform, or move its clock."""

import contextlib
import json
import re
import time
from typing import Annotated, Any
from urllib.parse import unquote_plus

import typer

from preheat.cli.clients import Platform, endpoint_of, fail
from preheat.cli.up import Port

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)\Z")
FOLLOW_S = 0.5
SHOWN = 200


def services() -> None:
    """What is implemented, out of what AWS's models have."""
    from preheat.cli.inventory import inventory

    total = done = 0
    for name, implemented, modelled in inventory():
        typer.echo(f"{name:20} {len(implemented):4} of {len(modelled):4}")
        total += len(modelled)
        done += len(implemented)
        missing = sorted(set(modelled) - set(implemented))
        if missing and len(implemented):
            typer.echo(f"{'':20} not yet: {', '.join(missing)}"[:2_000])
    typer.echo(f"{'together':20} {done:4} of {total:4}")


def clock(
    action: Annotated[str, typer.Argument(help="now, or advance")] = "now",
    amount: Annotated[str, typer.Argument(help="as in 90s, 15m, 6h, 2d")] = "",
    port: Port = None,
) -> None:
    """Show the platform's clock, or move it forward: what became due happens now."""
    platform = Platform(endpoint_of(port))
    if action == "now":
        status, body = platform.request("GET", "/_preheat/clock")
    elif action == "advance":
        match = DURATION.match(amount)
        if match is None:
            fail(f"advance by an amount such as 90s, 15m, 6h or 2d, not {amount!r}", 2)
        seconds = float(match[1]) * UNITS[match[2] or "s"]
        status, body = platform.request("POST", f"/_preheat/clock/advance?seconds={seconds}")
    else:
        fail(f"clock takes now or advance, not {action!r}", 2)
    document = json.loads(body)
    if status != 200:
        fail(document["message"])
    typer.echo(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(document["now"])))


def status(port: Port = None) -> None:
    """Stacks, queues and functions of the platform, in a few lines."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    for stack in platform.client("cloudformation").describe_stacks()["Stacks"]:
        typer.echo(f"stack    {stack['StackName']:40} {stack['StackStatus']}")
    sqs = platform.client("sqs")
    for url in sqs.list_queues().get("QueueUrls", []):
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        waiting, flying = found["ApproximateNumberOfMessages"], found["ApproximateNumberOfMessagesNotVisible"]
        typer.echo(f"queue    {url.rpartition('/')[2]:40} {waiting} waiting, {flying} in flight")
    for function in platform.client("lambda").list_functions()["Functions"]:
        typer.echo(f"function {function['FunctionName']:40} {function.get('Runtime', '')} {function['MemorySize']} MB")
    for notice in json.loads(platform.request("GET", "/_preheat/notices")[1])["notices"]:
        typer.echo(f"notice   {notice}")


def invoke(
    function: Annotated[str, typer.Argument(help="Function name or ARN.")],
    payload: Annotated[str, typer.Argument(help="JSON event.")] = "{}",
    port: Port = None,
) -> None:
    """Invoke a function and print its answer; its log goes to stderr."""
    import base64

    from botocore.exceptions import ClientError

    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    try:
        reply = platform.client("lambda").invoke(FunctionName=function, Payload=payload.encode(), LogType="Tail")
    except ClientError as error:
        fail(error.response["Error"]["Message"])
    typer.echo(base64.b64decode(reply.get("LogResult", "")).decode(errors="replace"), err=True)
    typer.echo(reply["Payload"].read().decode(errors="replace"))
    if reply.get("FunctionError"):
        raise typer.Exit(1)


def logs(
    function: Annotated[str, typer.Argument(help="Function name (part of it is enough).")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines.")] = False,
    port: Port = None,
) -> None:
    """Print what functions wrote."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    client = platform.client("logs")
    seen: dict[str, int] = {}
    while True:
        for group in client.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            if function in name:
                seen[name] = _print_events(client, name, seen.get(name, 0))
        if not follow:
            return
        time.sleep(FOLLOW_S)


def _print_events(client: Any, group: str, after_ms: int) -> int:
    newest = after_ms
    pages = client.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=after_ms + 1)
    for page in pages:
        for event in page["events"]:
            newest = max(newest, event["timestamp"])
            typer.echo(f"{group.rpartition('/')[2]} {event['message'].rstrip()}")
    return newest


def dlq(
    redrive: Annotated[bool, typer.Option(help="Send the messages back to where they came from.")] = False,
    port: Port = None,
) -> None:
    """Show what lies in dead-letter queues."""
    platform = Platform(endpoint_of(port))
    platform.request("GET", "/_preheat/health")
    sqs = platform.client("sqs")
    found = 0
    for url in sqs.list_queues().get("QueueUrls", []):
        sources = sqs.list_dead_letter_source_queues(QueueUrl=url)["queueUrls"]
        if sources:
            found += _show_dead_letters(platform, url, sources, redrive)
    typer.echo(f"{found} dead letters" if found else "no dead letters")


def _show_dead_letters(platform: Platform, url: str, sources: list[str], redrive: bool) -> int:
    """Peek at each message once (or send it back); they become visible again at once."""
    sqs = platform.client("sqs")
    handles: list[str] = []
    while True:
        reply = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60, MessageSystemAttributeNames=["All"]
        )
        messages = reply.get("Messages", [])
        if not messages:
            break
        for message in messages:
            source = message["Attributes"].get("DeadLetterQueueSourceArn", "")
            name = source.rpartition(":")[2] or "unknown source"
            typer.echo(f"{url.rpartition('/')[2]}  from {name}  {message['MessageId']}  {_told(message['Body'])}")
            for reason in _reasons(platform, source, message["MessageId"]):
                typer.echo(f"    {reason}")
            back = next((one for one in sources if one.rpartition("/")[2] == name), sources[0])
            if redrive:
                sqs.send_message(QueueUrl=back, MessageBody=message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            handles.append(message["ReceiptHandle"])
    if not redrive:
        for handle in handles:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    return len(handles)


def _told(body: str) -> str:
    """A message in one line: what an S3 notification says, else its beginning."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        said = [
            f"{one['eventName']} {one['s3']['bucket']['name']}/{unquote_plus(one['s3']['object']['key'])}"
            for one in json.loads(body)["Records"]
        ]
        if said:
            return ", ".join(said)
    return " ".join(body.split())[:SHOWN]


def _reasons(platform: Platform, source: str, message: str) -> list[str]:
    """What the queue's functions last logged about a message: the `error` of JSON lines that name its id."""
    if not source:
        return []
    found = []
    logs = platform.client("logs")
    for mapping in platform.client("lambda").list_event_source_mappings(EventSourceArn=source)["EventSourceMappings"]:
        group = f"/aws/lambda/{mapping['FunctionArn'].split(':')[6]}"
        try:
            events = logs.filter_log_events(logGroupName=group, filterPattern=f'"{message}"')["events"]
        except logs.exceptions.ResourceNotFoundException:
            continue
        lines = [_error(event["message"]) for event in events]
        found += [line for line in lines if line][-1:]
    return found


def _error(line: str) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(line).get("error", ""))
    return ""
