"""Recursive loops: how often a function has come round in one chain of requests, carried in the trace header.

Each invocation gets `Root=..;Parent=..;Sampled=..;Lineage=<mark of a function>:<turns>|..`. The runtime hands it to the
handler's SDK client, which sends it along; queues, topics, bucket notifications and destinations pass it on. A function
that comes round for the 16th time is stopped, unless its RecursiveLoop is Allow.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache

from preheat.execution.contract import FunctionSpec
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.awslambda import repository
from preheat.services.awslambda.core import Core, Operation, existing
from preheat.services.awslambda.domain import FunctionName, violation
from preheat.services.contract import Context, Outcome, Params

MAX_TURNS = 16
MAX_MARKS = 32
MODES = ("Allow", "Terminate")
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_REQUEST = re.compile(r"[0-9a-f]{32}")
_LINE = re.compile(r"(?:\d+:)?([0-9a-f]{8}):(\d{1,5})")


@lru_cache(4_096)
def mark(arn: str) -> str:
    """The eight hexadecimal digits that stand for a function in a lineage."""
    return hashlib.sha256(arn.encode()).hexdigest()[:8]


def parse(header: str) -> dict[str, str]:
    """The fields of a trace header. Clients quote the bar."""
    fields = (part.partition("=") for part in header.replace("%7C", "|").replace("%7c", "|").split(";"))
    return {name.strip(): value.strip() for name, _, value in fields}


def lineage(fields: dict[str, str]) -> dict[str, int]:
    """Turns by mark; what cannot be read counts for nothing."""
    found = (_LINE.fullmatch(part) for part in fields.get("Lineage", "").split("|"))
    return {match[1]: int(match[2]) for match in found if match is not None}


def fresh(arn: str, request_id: str, now: float, *, sampled: bool = False) -> str:
    """The trace header of an invocation that continues nothing."""
    digits = request_id.replace("-", "")
    if _REQUEST.fullmatch(digits) is None:
        digits = hashlib.sha256(request_id.encode()).hexdigest()[:32]
    return f"Root=1-{int(now):08x}-{digits[:24]};Parent={digits[16:]};Sampled={int(sampled)};Lineage={mark(arn)}:0"


def extended(
    traces: Iterable[str], arn: str, request_id: str, now: float, *, sampled: bool = False
) -> tuple[str, int]:
    """(trace header of an invocation caused by requests with these headers, how often the function came round). The
    first header is continued, `sampled` where it leaves that open; of several lineages the longest way of each function
    counts."""
    merged: dict[str, int] = {}
    first: dict[str, str] = {}
    for trace in traces:
        fields = parse(trace)
        first = first or fields
        for name, turns in lineage(fields).items():
            merged[name] = max(turns, merged.get(name, 0))
    own = mark(arn)
    turns = merged.pop(own, -1) + 1
    lines = [f"{own}:{turns}", *(f"{name}:{count}" for name, count in list(merged.items())[: MAX_MARKS - 1])]
    new = parse(fresh(arn, request_id, now, sampled=sampled))
    root = first.get("Root", "")
    if _ROOT.fullmatch(root):
        new["Root"] = root
        if first.get("Sampled") in ("0", "1"):
            new["Sampled"] = first["Sampled"]
    text = f"Root={new['Root']};Parent={new['Parent']};Sampled={new['Sampled']};Lineage={'|'.join(lines)}"
    return text, turns


def check(ctx: Context, spec: FunctionSpec, traces: Iterable[str | None], request_id: str) -> str | None:
    """The trace header for an invocation of `spec` caused by requests that came with `traces`; None when none has one
    (`start_invocation` makes a new one). Raises RecursiveInvocationException for the 16th turn of a loop."""
    incoming = [trace for trace in traces if trace]
    if not incoming:
        return None
    header, turns = extended(incoming, spec.arn, request_id, ctx.now, sampled=spec.tracing)
    if turns < MAX_TURNS:
        return header
    function = FunctionName(Scope(spec.account, spec.region), spec.name)
    if repository.recursion(ctx.db, function) == "Allow":
        return header
    ctx.machine.meter.record(function.scope, "AWS/Lambda", "RecursiveInvocationsDropped", FunctionName=spec.name)
    raise AwsError(
        "RecursiveInvocationException",
        "Lambda has detected your function being invoked in a recursive loop with other Amazon Web Services resources "
        "and stopped your function's invocation.",
        400,
        fields={"Type": "User"},
    )


def put_function_recursion_config(core: Core, ctx: Context, params: Params) -> Outcome:
    function = existing(ctx, params)
    mode = params["RecursiveLoop"]
    if mode not in MODES:
        raise violation(mode, "recursiveLoop", "Member must satisfy enum value set: [Allow, Terminate]")
    repository.set_recursion(ctx.db, function, mode)
    return {"RecursiveLoop": mode}


def get_function_recursion_config(core: Core, ctx: Context, params: Params) -> Outcome:
    return {"RecursiveLoop": repository.recursion(ctx.db, existing(ctx, params))}


OPERATIONS: dict[str, Operation] = {
    "PutFunctionRecursionConfig": put_function_recursion_config,
    "GetFunctionRecursionConfig": get_function_recursion_config,
}
