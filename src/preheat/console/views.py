"""What the console shows. Each view is a function of a context and of the arguments in the query string, and gives
JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.console import traces
from preheat.services.contract import Context

PAGE = Path(__file__).parent / "index.html"
OUTBOX_SHOWN = 20


def overview(ctx: Context, asked: dict[str, str]) -> dict[str, Any]:
    """Stacks with their status, queues with their depths, functions with their settings, the last mails and texts, and
    the machine's ceiling."""
    return {
        "stacks": _stacks(ctx), "queues": _queues(ctx), "functions": _functions(ctx), "outbox": _outbox(ctx),
        "machine": _machine(ctx),
    }  # fmt: skip


def _machine(ctx: Context) -> dict[str, Any]:
    """How many environments there are, the machine's ceiling, and how often it held up what AWS would have run."""
    usage = ctx.machine.services["lambda"].machine_usage()
    return {
        "environments": usage.running + usage.idle + usage.starting,
        "provisioned": usage.provisioned,
        "max_environments": usage.max_environments,
        "waiting": usage.waiting,
        "ceiling_reached": usage.bindings,
        "free_mb": usage.free_mb,
        "min_free_mb": usage.min_free_mb,
    }


def _stacks(ctx: Context) -> list[dict[str, Any]]:
    found = ctx.call("cloudformation", "DescribeStacks", {})["Stacks"]
    return [{"name": one["StackName"], "status": one["StackStatus"]} for one in found]


def _queues(ctx: Context) -> list[dict[str, Any]]:
    rows = []
    for url in ctx.call("sqs", "ListQueues", {}).get("QueueUrls", []):
        values = ctx.call("sqs", "GetQueueAttributes", {"QueueUrl": url, "AttributeNames": ["All"]})["Attributes"]
        sources = ctx.call("sqs", "ListDeadLetterSourceQueues", {"QueueUrl": url})["queueUrls"]
        rows.append(
            {
                "name": url.rpartition("/")[2],
                "waiting": int(values["ApproximateNumberOfMessages"]),
                "in_flight": int(values["ApproximateNumberOfMessagesNotVisible"]),
                "delayed": int(values["ApproximateNumberOfMessagesDelayed"]),
                "dead_letters": bool(sources),
            }
        )
    return rows


def _functions(ctx: Context) -> list[dict[str, Any]]:
    return [
        {"name": one["FunctionName"], "runtime": one.get("Runtime", ""), "memory_mb": one["MemorySize"],
         "timeout_s": one["Timeout"]}
        for one in ctx.call("lambda", "ListFunctions", {})["Functions"]
    ]  # fmt: skip


def _outbox(ctx: Context) -> list[dict[str, Any]]:
    sns: Any = ctx.machine.services["sns"]
    return [
        {name: row[name] for name in ("at", "protocol", "recipient", "subject", "body")}
        for row in sns.outbox(OUTBOX_SHOWN)
    ]


VIEWS: dict[str, Callable[[Context, dict[str, str]], dict[str, Any]]] = {
    "overview": overview, "traces": traces.recent, "trace": traces.trace,
}  # fmt: skip
