"""From an event on a bus to the deliveries of the rules that match it, and to the archives that keep it.

What is compiled from the rules of a bus is kept in memory until they change; the rows are the truth.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.contract import Context, Params, Principal
from preheat.services.deliveries import Counts, Delivery, emit, role_principal, trace_header
from preheat.services.events import repository, transform
from preheat.services.events.counting import Counting
from preheat.services.events.domain import (
    NAMESPACE,
    SERVICE,
    BusName,
    Rule,
    compact,
    new_event,
)
from preheat.services.patterns import Pattern, RuleIndex, compile_pattern, flatten
from preheat.services.schedules.retries import ladder
from preheat.store.database import Database

Target = dict[str, Any]
Event = dict[str, Any]
MAX_COMPILED = 50_000
TRANSFORMING = frozenset({"Input", "InputPath", "InputTransformer"})


@dataclass(slots=True)
class Plan:
    """A bus, compiled: its enabled pattern rules with their targets, and its archives. `members`: the members of an
    event that any of their patterns looks at."""

    index: RuleIndex[int] = field(default_factory=RuleIndex)
    rules: dict[int, tuple[Rule, list[Target]]] = field(default_factory=dict)
    archives: list[tuple[int, Pattern | None]] = field(default_factory=list)
    members: set[str] = field(default_factory=set)


class Router:
    """`changed(ctx, bus)` after every write about a bus, `route(ctx, bus, event)` for every event on it. `pace` says
    when an event may leave for an API destination."""

    def __init__(self, db: Database, pace: Callable[[Context, str], float | None]) -> None:
        self._pace = pace
        self._plans: dict[BusName, Plan] = {}
        self._compiled: dict[str, Pattern] = {}
        self._unsure = False
        self._counting = Counting()
        db.on_undo += [self._undone, self._counting.forget]

    def changed(self, ctx: Context, bus: BusName) -> None:
        """Forget what was compiled; until the commit even the new reading may be taken back."""
        self._plans.pop(bus, None)
        self._unsure = True
        ctx.db.after_commit(self._sure)

    def _sure(self) -> None:
        self._unsure = False

    def _undone(self) -> None:
        if self._unsure:
            self._plans.clear()

    def knows(self, bus: BusName) -> bool:
        """Whether the bus is there for certain, of which nothing has changed since its last event."""
        return bus in self._plans

    def pattern(self, text: str) -> Pattern:
        """Compiled once per text. Raises PatternError."""
        found = self._compiled.get(text)
        if found is None:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            found = self._compiled[text] = compile_pattern(text)
        return found

    def _plan(self, ctx: Context, bus: BusName) -> Plan:
        plan = self._plans.get(bus)
        if plan is None:
            plan = self._plans[bus] = Plan()
            for rule in repository.rules(ctx.db, *bus):
                if rule.enabled and rule.pattern is not None:
                    plan.rules[rule.row] = (rule, repository.targets(ctx.db, rule.row))
                    pattern = self.pattern(rule.pattern)
                    plan.index.add(rule.row, pattern)
                    plan.members |= _members(pattern)
            rows = ctx.db.all(
                "SELECT row, pattern FROM events_archives WHERE account = ? AND region = ? AND bus = ?"
                " AND row NOT IN (SELECT archive FROM events_archive_breaks)",
                *bus.scope, bus.name,
            )  # fmt: skip
            plan.archives = [(row[0], None if row[1] is None else self.pattern(row[1])) for row in rows]
            for _, archived in plan.archives:
                plan.members |= set() if archived is None else _members(archived)
        return plan

    def route(
        self, ctx: Context, bus: BusName, event: Event, *, only: list[str] | None = None, trace: str | None = None,
        forwarded: bool = False,
    ) -> None:  # fmt: skip
        """Send the event where the bus's rules say. `only`: the ARNs of the rules that may have it (a replay);
        `forwarded`: it came from another bus, so no rule sends it to a third."""
        plan = self._plan(ctx, bus)
        if not plan.rules and not plan.archives:
            return
        fields = flatten({name: event[name] for name in plan.members if name in event})
        for row in plan.index.matching_fields(fields):
            rule, targets = plan.rules[row]
            if only and rule.arn not in only:
                continue
            self.invoke(ctx, rule, targets, event, trace=trace, forwarded=forwarded, matched=True)
        if "replay-name" in event:
            return
        for archive, pattern in plan.archives:
            if pattern is None or pattern.matches_fields(fields):
                values = (archive, ctx.now, compact(event))
                ctx.db.run("INSERT INTO events_archived (archive, at, event) VALUES (?, ?, ?)", *values)

    def invoke(
        self, ctx: Context, rule: Rule, targets: list[Target], event: Event, *, trace: str | None = None,
        forwarded: bool = False, matched: bool = False,
    ) -> None:  # fmt: skip
        """Send an event to all targets of a rule, which it `matched` or whose time has come."""
        counted = ["MatchedEvents", "TriggeredRules"] if matched else ["TriggeredRules"]
        whole = compact(event)
        for target in targets:
            kind = target["Arn"].split(":", 3)[2]
            counted.append("Invocations")
            if forwarded and kind == "events" and ":event-bus/" in target["Arn"]:
                delivery = _delivery(ctx, rule, target, event, whole, trace)
                emit(ctx, msgspec.structs.replace(delivery, options={**delivery.options, "hop": "third"}))
                continue
            if kind == "sqs" and self._to_queue(ctx, rule, target, event, whole, trace):
                counted.append("SuccessfulInvocationAttempts")
            else:
                due_at = self._pace(ctx, target["Arn"]) if ":api-destination/" in target["Arn"] else None
                emit(ctx, _delivery(ctx, rule, target, event, whole, trace), due_at)
        self._counting.add(ctx, rule, counted)

    def _to_queue(
        self, ctx: Context, rule: Rule, target: Target, event: Event, whole: str, trace: str | None
    ) -> bool:
        """Send to a queue of this server at once, in the same transaction. False leaves it to a delivery: when policies
        are enforced, or the queue refuses."""
        queues: Any = ctx.machine.services.get("sqs")
        if queues is None or ctx.machine.authorizer is not None:
            return False
        place, url, sender = _queue(target["Arn"], target.get("RoleArn") or rule.role)
        params: Params = {"QueueUrl": url, "MessageBody": _body(ctx, rule, target, event, whole)}
        group = target.get("SqsParameters", {}).get("MessageGroupId")
        if group is not None:
            params["MessageGroupId"] = group
        trace = trace or trace_header(ctx)
        if trace is not None:
            params["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace}}
        try:
            there = Context(place, ctx.now, ctx.db, sender, ctx.request_id, ctx.machine)
            queues.operations["SendMessage"](there, params)
        except AwsError:
            return False
        return True

    def scheduled(self, ctx: Context, rule: Rule, at: float) -> None:
        """A schedule was due at `at`."""
        event = new_event(rule.scope, ctx.entropy.uuid(), "aws.events", "Scheduled Event", {}, [rule.arn], at)
        self.invoke(ctx, rule, repository.targets(ctx.db, rule.row), event)


def _members(pattern: Pattern) -> set[str]:
    """The members of an event that a pattern looks at."""
    return {path.partition(".")[0] for alternative in pattern.alternatives for path in alternative}


@lru_cache(4_096)
def _queue(target: str, role: str | None) -> tuple[Scope, str, Principal]:
    """Where the queue with this ARN is, its address, and who sends to it."""
    arn = Arn.parse(target)
    sender = role_principal(role, "events") if role else Principal(SERVICE, arn.account, "service", SERVICE)
    return arn.scope, f"/{arn.account}/{arn.resource}", sender


def _body(ctx: Context, rule: Rule, target: Target, event: Event, whole: str) -> str:
    """What the target is sent."""
    if target.keys().isdisjoint(TRANSFORMING):
        return whole
    ingested = datetime.fromtimestamp(ctx.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return transform.body(target, event, whole, rule.arn, rule.name, ingested)


def _delivery(ctx: Context, rule: Rule, target: Target, event: Event, whole: str, trace: str | None) -> Delivery:
    body = _body(ctx, rule, target, event, whole)
    options, body = _options(target, event, body)
    return Delivery(
        target["Arn"],
        body,
        source_arn=rule.arn,
        source_service=SERVICE,
        role=target.get("RoleArn") or rule.role or "",
        message_group_id=target.get("SqsParameters", {}).get("MessageGroupId"),
        options=options,
        ladder=ladder(target.get("RetryPolicy", {})),
        dead_letter=target.get("DeadLetterConfig", {}).get("Arn"),
        dead_letter_attributes={"RULE_ARN": ("String", rule.arn), "TARGET_ARN": ("String", target["Arn"])},
        dead_letter_style="events",
        counts=Counts(
            NAMESPACE,
            rule.dimensions,
            delivered="SuccessfulInvocationAttempts",
            failed="FailedInvocations",
            retried="RetryInvocationAttempts",
            dead_lettered="InvocationsSentToDlq",
            dead_letter_failed="InvocationsFailedToBeSentToDlq",
        ),
        trace=trace,
    )


def _options(target: Target, event: Event, body: str) -> tuple[dict[str, Any], str]:
    """(what this kind of target needs besides, the body it gets)."""
    kind = target["Arn"].split(":", 3)[2]
    if kind == "kinesis":
        path = target.get("KinesisParameters", {}).get("PartitionKeyPath")
        return {"partition_key": (transform.text_at(path, event) if path else None) or event["id"]}, body
    if kind == "logs":
        return _log_options(body)
    if kind == "events" and ":api-destination/" in target["Arn"]:
        return {"http": _http(target.get("HttpParameters", {}), event)}, body
    if kind == "events":
        return {"event": event}, body
    return {}, body


def _log_options(body: str) -> tuple[dict[str, Any], str]:
    """A template may give a log event's own timestamp (epoch milliseconds) and message."""
    try:
        given = json.loads(body)
    except ValueError:
        return {}, body
    if not isinstance(given, dict) or set(given) != {"timestamp", "message"}:
        return {}, body
    message = given["message"] if isinstance(given["message"], str) else compact(given["message"])
    stamp = given["timestamp"]
    return ({"timestamp": stamp} if isinstance(stamp, int) and not isinstance(stamp, bool) else {}), message


def _http(parameters: dict[str, Any], event: Event) -> dict[str, Any]:
    """HttpParameters with what a JSON path in them stands for."""

    def value(text: str) -> str:
        return (transform.text_at(text, event) or "") if text.startswith("$") else text

    return {
        "path": [value(text) for text in parameters.get("PathParameterValues", ())],
        "headers": {name: value(text) for name, text in parameters.get("HeaderParameters", {}).items()},
        "query": {name: value(text) for name, text in parameters.get("QueryStringParameters", {}).items()},
    }
