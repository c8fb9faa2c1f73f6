"""CloudWatch Logs: groups, streams, events, retention, filters."""

import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from preheat.execution.contract import LogLine
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.contract import Context, Loop, Operation, Platform
from preheat.services.logs import metric_filters, repository, subscriptions
from preheat.services.logs.domain import (
    DAY_MS,
    MAX_PAGE_BYTES,
    MAX_PAGE_EVENTS,
    NO_GROUP,
    RETENTION_DAYS,
    Position,
    check_batch,
    event_id,
    group_name,
    group_of,
    group_of_arn,
    invalid,
    page_limit,
    position_token,
    read_token,
    stream_name,
    violation,
)
from preheat.services.logs.embedded import measure
from preheat.services.logs.patterns import BadPattern, compile_pattern
from preheat.services.logs.repository import Event, Group, Stream

Params = dict[str, Any]
CLEAN_EVERY_S = 3_600.0
SCAN_CHUNK = 500
SCAN_MOST = 10_000
EVENTS_PER_STEP = 1_000
MAX_LISTED = 50
MOST_LISTED = 1_000
MAX_TAGS = 50
NAME_PATTERN = r"(\^?[\.\-_\/#A-Za-z0-9]{3,24})(\|\^?[\.\-_\/#A-Za-z0-9]{3,24}){0,4}"
_NAME_PATTERN = re.compile(NAME_PATTERN)
MAX_STREAM_NAMES = 100
FOREVER_MS = 2**62


def _group_arn(scope: Scope, name: str) -> str:
    return scope.arn("logs", f"log-group:{name}")


# -- groups -----------------------------------------------------------------------------------------------------------


def create_log_group(ctx: Context, params: Params) -> Params:
    name = group_name(params.get("logGroupName"))
    if params.get("kmsKeyId"):
        raise invalid("Preheat does not support kmsKeyId: log data is not encrypted with KMS keys")
    group_class = params.get("logGroupClass", "STANDARD")
    if group_class not in ("STANDARD", "INFREQUENT_ACCESS"):
        raise invalid(f"Preheat does not support the log group class {group_class}")
    if repository.find_group(ctx.db, ctx.scope, name) is not None:
        raise AwsError("ResourceAlreadyExistsException", "The specified log group already exists")
    number = repository.add_group(
        ctx.db, ctx.scope, name, group_class, ctx.now_ms, params.get("deletionProtectionEnabled", False)
    )
    _write_tags(ctx, number, params.get("tags", {}))
    return {}


def delete_log_group(ctx: Context, params: Params) -> Params:
    group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    if group.protected:
        raise AwsError(
            "ValidationException",
            f"The log group {group.name} has deletion protection enabled. Disable deletion protection and try again.",
        )
    repository.delete_group(ctx.db, group)
    return {}


def put_log_group_deletion_protection(ctx: Context, params: Params) -> Params:
    group = repository.require_group(ctx.db, ctx.scope, group_of(params))
    ctx.db.run("UPDATE logs_groups SET protected = ? WHERE id = ?", params["deletionProtectionEnabled"], group.id)
    return {}


def describe_log_groups(ctx: Context, params: Params) -> Params:
    limit = page_limit(params, MAX_LISTED, MAX_LISTED)
    prefix, pattern = params.get("logGroupNamePrefix"), params.get("logGroupNamePattern")
    if prefix is not None and pattern is not None:
        raise invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
    for member in ("accountIdentifiers", "includeLinkedAccounts"):
        if params.get(member):
            raise invalid(f"Preheat does not support {member}")
    after = params.get("nextToken", "")
    wanted = params.get("logGroupIdentifiers")
    if wanted:
        names = [group_of({"logGroupIdentifier": identifier}) for identifier in wanted]
        found = [repository.find_group(ctx.db, ctx.scope, name) for name in names]
        return {"logGroups": [_describe_group(ctx, group) for group in found if group is not None]}
    groups = repository.list_groups(ctx.db, ctx.scope, prefix or "", pattern or "", after, limit + 1)
    group_class = params.get("logGroupClass")
    out: Params = {
        "logGroups": [
            _describe_group(ctx, group)
            for group in groups[:limit]
            if group_class in (None, group.group_class)
        ]
    }
    if pattern is not None:
        for found_group in out["logGroups"]:
            del found_group["storedBytes"], found_group["deletionProtectionEnabled"]
    if len(groups) > limit:
        out["nextToken"] = groups[limit - 1].name
    return out


def list_log_groups(ctx: Context, params: Params) -> Params:
    """`logGroupNamePattern`: a part of the name, from its start with `^`; several parted by `|`."""
    limit = page_limit(params, MAX_LISTED, MOST_LISTED)
    for member in ("accountIdentifiers", "includeLinkedAccounts", "dataSources", "fieldIndexNames", "logGroupTags"):
        if params.get(member):
            raise invalid(f"Preheat does not support {member}")
    text = params.get("logGroupNamePattern", "")
    if "logGroupNamePattern" in params and not _NAME_PATTERN.fullmatch(text):
        raise violation(text, "logGroupNamePattern", f"Member must satisfy regular expression pattern: {NAME_PATTERN}")
    parts, group_class = text.split("|"), params.get("logGroupClass")

    def wanted(group: Group) -> bool:
        named = any(group.name.startswith(part[1:]) if part[:1] == "^" else part in group.name for part in parts)
        return named and group_class in (None, group.group_class)

    groups = repository.list_groups(ctx.db, ctx.scope, "", "", params.get("nextToken", ""), -1)
    found = [group for group in groups if wanted(group)]
    shown = []
    for group in found[:limit]:
        arn = _group_arn(ctx.scope, group.name)
        shown.append({"logGroupName": group.name, "logGroupArn": arn, "logGroupClass": group.group_class})
    return {"logGroups": shown, **({"nextToken": found[limit - 1].name} if len(found) > limit else {})}


def _describe_group(ctx: Context, group: Group) -> Params:
    arn = _group_arn(ctx.scope, group.name)
    out: Params = {
        "logGroupName": group.name,
        "creationTime": group.created_ms,
        "metricFilterCount": repository.count_filters(ctx.db, group.id, metric_filters.KIND),
        "arn": f"{arn}:*",
        "storedBytes": group.bytes,
        "logGroupClass": group.group_class,
        "logGroupArn": arn,
        "deletionProtectionEnabled": bool(group.protected),
    }
    if group.retention_days is not None:
        out["retentionInDays"] = group.retention_days
    return out


def put_retention_policy(ctx: Context, params: Params) -> Params:
    days = params.get("retentionInDays")
    if days not in RETENTION_DAYS:
        shown = ", ".join(map(str, RETENTION_DAYS))
        raise violation(days, "retentionInDays", f"Member must satisfy enum value set: [{shown}]")
    group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    ctx.db.run("UPDATE logs_groups SET retention_days = ? WHERE id = ?", days, group.id)
    ctx.db.notify(repository.CLEAN_TOPIC)
    return {}


def delete_retention_policy(ctx: Context, params: Params) -> Params:
    group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    ctx.db.run("UPDATE logs_groups SET retention_days = NULL WHERE id = ?", group.id)
    return {}


# -- streams ----------------------------------------------------------------------------------------------------------


def create_log_stream(ctx: Context, params: Params) -> Params:
    name = stream_name(params.get("logStreamName"))
    group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    if repository.find_stream(ctx.db, group, name) is not None:
        raise AwsError("ResourceAlreadyExistsException", "The specified log stream already exists")
    repository.add_stream(ctx.db, group.id, name, ctx.now_ms)
    return {}


def delete_log_stream(ctx: Context, params: Params) -> Params:
    group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    if group.protected:
        raise AwsError(
            "ValidationException",
            f"The log group {group.name} has deletion protection enabled. Disable deletion protection and try again.",
        )
    stream = repository.require_stream(ctx.db, group, stream_name(params.get("logStreamName")))
    repository.delete_stream(ctx.db, stream)
    return {}


def describe_log_streams(ctx: Context, params: Params) -> Params:
    limit = page_limit(params, MAX_LISTED, MAX_LISTED)
    group = repository.require_group(ctx.db, ctx.scope, group_of(params))
    order = params.get("orderBy", "LogStreamName")
    descending = params.get("descending", False)
    token = params.get("nextToken")
    if order == "LogStreamName":
        streams = repository.streams_by_name(
            ctx.db, group, params.get("logStreamNamePrefix", ""), token, limit + 1, descending
        )
    elif order == "LastEventTime":
        if params.get("logStreamNamePrefix"):
            raise invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        after = None if token is None else _read_place(token)
        streams = repository.streams_by_time(ctx.db, group, after, limit + 1, descending)
    else:
        raise violation(order, "orderBy", "Member must satisfy enum value set: [LogStreamName, LastEventTime]")
    out: Params = {"logStreams": [_describe_stream(ctx.scope, group, stream) for stream in streams[:limit]]}
    if len(streams) > limit:
        last = streams[limit - 1]
        by_name = order == "LogStreamName"
        out["nextToken"] = last.name if by_name else f"{-1 if last.last_ms is None else last.last_ms}.{last.id}"
    return out


def _read_place(token: str) -> Position:
    at, _, number = token.partition(".")
    try:
        return Position(int(at), int(number))
    except ValueError:
        raise invalid("The specified nextToken is invalid.") from None


def _describe_stream(scope: Scope, group: Group, stream: Stream) -> Params:
    out: Params = {
        "logStreamName": stream.name,
        "creationTime": stream.created_ms,
        "arn": f"{_group_arn(scope, group.name)}:log-stream:{stream.name}",
        "storedBytes": 0,
    }
    for member, value in (
        ("firstEventTimestamp", stream.first_ms),
        ("lastEventTimestamp", stream.last_ms),
        ("lastIngestionTime", stream.ingested_ms),
    ):
        if value is not None:
            out[member] = value
    return out


# -- events -----------------------------------------------------------------------------------------------------------


def _window(ctx: Context, params: Params, group: Group) -> tuple[int, int]:
    """[start, end) in epoch milliseconds; what retention has passed over is not shown."""
    start = params.get("startTime", 0)
    if group.retention_days is not None:
        start = max(start, ctx.now_ms - group.retention_days * DAY_MS)
    return start, params.get("endTime", FOREVER_MS)


def get_log_events(ctx: Context, params: Params) -> Params:
    limit = page_limit(params, MAX_PAGE_EVENTS, MAX_PAGE_EVENTS)
    group = repository.require_group(ctx.db, ctx.scope, group_of(params))
    stream = repository.require_stream(ctx.db, group, stream_name(params.get("logStreamName")))
    token = params.get("nextToken")
    after: Position | None = None
    forward = params.get("startFromHead", False)
    if token is not None:
        direction, after = read_token(token)
        forward = direction == "f"
    window = _window(ctx, params, group)
    events = _page(ctx, ("stream_id", stream.id), window, after, limit, forward)
    if not forward:
        events.reverse()
    first = events[0].position if events else after or Position()
    last = events[-1].position if events else after or Position()
    return {
        "events": [_show(event) for event in events],
        "nextForwardToken": position_token("f", last),
        "nextBackwardToken": position_token("b", first),
    }


def _page(
    ctx: Context, place: tuple[str, int], window: tuple[int, int], after: Position | None, limit: int, forward: bool
) -> list[Event]:
    """Up to `limit` events and 1 MB."""
    out: list[Event] = []
    size = 0
    while len(out) < limit:
        wanted = min(SCAN_CHUNK, limit - len(out))
        events = repository.read_events(ctx.db, place, window, after, wanted, forward)
        for event in events:
            size += len(event.message)
            if out and size > MAX_PAGE_BYTES:
                return out
            out.append(event)
        if len(events) < wanted:
            break
        after = events[-1].position
    return out


def _show(event: Event) -> Params:
    return {"timestamp": event.position.at_ms, "message": event.message, "ingestionTime": event.ingested_ms}


# -- tags -------------------------------------------------------------------------------------------------------------


def _write_tags(ctx: Context, group_id: int, tags: dict[str, str]) -> None:
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256 or key.lower().startswith("aws:"):
            raise invalid(f"The tag key or value is not valid: {key}")
        ctx.db.run("INSERT OR REPLACE INTO logs_tags VALUES (?, ?, ?)", group_id, key, value)
    if tags and ctx.db.value("SELECT COUNT(*) FROM logs_tags WHERE group_id = ?", group_id) > MAX_TAGS:
        raise AwsError("TooManyTagsException", "A resource can have no more than 50 tags.")


def _tagged_group(ctx: Context, params: Params) -> Group:
    if "resourceArn" not in params:
        return repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
    name = group_of_arn(params["resourceArn"])
    group = repository.find_group(ctx.db, ctx.scope, name)
    if group is None:
        raise AwsError("ResourceNotFoundException", NO_GROUP)
    return group


def tag_resource(ctx: Context, params: Params) -> Params:
    _write_tags(ctx, _tagged_group(ctx, params).id, params.get("tags", {}))
    return {}


def untag_resource(ctx: Context, params: Params) -> Params:
    group = _tagged_group(ctx, params)
    for key in params.get("tagKeys", params.get("tags", ())):
        ctx.db.run("DELETE FROM logs_tags WHERE group_id = ? AND key = ?", group.id, key)
    return {}


def list_tags(ctx: Context, params: Params) -> Params:
    group = _tagged_group(ctx, params)
    rows = ctx.db.all("SELECT key, value FROM logs_tags WHERE group_id = ? ORDER BY key", group.id)
    return {"tags": {row[0]: row[1] for row in rows}}


# -- the service ------------------------------------------------------------------------------------------------------


class CleanLoop:
    """Removes events past their group's retention and those of deleted groups and streams, a thousand at a time.
    Expired events are hidden from reads at once, so an hourly look is enough."""

    name = "logs-clean"
    topics = (repository.CLEAN_TOPIC,)

    def step(self, ctx: Context) -> float | None:
        debris = ctx.db.one("SELECT id, group_id, stream_id FROM logs_debris ORDER BY id LIMIT 1")
        if debris is not None:
            place = ("group_id", debris[1]) if debris[1] is not None else ("stream_id", debris[2])
            if repository.delete_events(ctx.db, *place, None, EVENTS_PER_STEP) < EVENTS_PER_STEP:
                ctx.db.run("DELETE FROM logs_debris WHERE id = ?", debris[0])
            return ctx.now
        due: list[float] = []
        for row in ctx.db.all("SELECT id, retention_days FROM logs_groups WHERE retention_days IS NOT NULL"):
            horizon = ctx.now_ms - row[1] * DAY_MS
            if repository.delete_events(ctx.db, "group_id", row[0], horizon, EVENTS_PER_STEP) == EVENTS_PER_STEP:
                return ctx.now
            oldest = ctx.db.value("SELECT MIN(at_ms) FROM logs_events WHERE group_id = ?", row[0])
            if oldest is None:
                due.append(ctx.now + CLEAN_EVERY_S)
            else:
                due.append(min((oldest + row[1] * DAY_MS + 1) / 1_000, ctx.now + CLEAN_EVERY_S))
        return min(due, default=None)


class LogsService:
    """`loops` go to `Machine.add_loop`; `append` is how the platform itself writes."""

    name = "logs"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self) -> None:
        self.loops: list[Loop] = [CleanLoop()]
        self._compiled = lru_cache(256)(compile_pattern)
        self.operations: dict[str, Operation] = {
            "CreateLogGroup": create_log_group,
            "CreateLogStream": create_log_stream,
            "DeleteLogGroup": delete_log_group,
            "DeleteLogStream": delete_log_stream,
            "DeleteMetricFilter": metric_filters.delete_metric_filter,
            "DeleteRetentionPolicy": delete_retention_policy,
            "DeleteSubscriptionFilter": subscriptions.delete_subscription_filter,
            "DescribeLogGroups": describe_log_groups,
            "DescribeLogStreams": describe_log_streams,
            "DescribeMetricFilters": metric_filters.describe_metric_filters,
            "DescribeSubscriptionFilters": subscriptions.describe_subscription_filters,
            "FilterLogEvents": self.filter_log_events,
            "GetLogEvents": get_log_events,
            "ListLogGroups": list_log_groups,
            "ListTagsForResource": list_tags,
            "ListTagsLogGroup": list_tags,
            "PutLogEvents": self.put_log_events,
            "PutLogGroupDeletionProtection": put_log_group_deletion_protection,
            "PutMetricFilter": metric_filters.put_metric_filter,
            "PutRetentionPolicy": put_retention_policy,
            "PutSubscriptionFilter": subscriptions.put_subscription_filter,
            "TagLogGroup": tag_resource,
            "TagResource": tag_resource,
            "TestMetricFilter": metric_filters.test_metric_filter,
            "UntagLogGroup": untag_resource,
            "UntagResource": untag_resource,
        }

    def put_log_events(self, ctx: Context, params: Params) -> Params:
        group = repository.require_group(ctx.db, ctx.scope, group_name(params.get("logGroupName")))
        stream = repository.require_stream(ctx.db, group, stream_name(params.get("logStreamName")))
        if params.get("entity"):
            raise invalid("Preheat does not support entity: log data is not associated with entities")
        now_ms = ctx.now_ms
        batch = check_batch(params.get("logEvents", []), now_ms, group.retention_days)
        repository.add_events(ctx.db, group.id, stream.id, batch.kept, now_ms)
        for _, message in batch.kept:
            measure(ctx.machine.meter, ctx.scope, message)
        self._filter(ctx, group, stream.name, batch.kept)
        ctx.db.notify(repository.topic(group.name))
        out: Params = {"nextSequenceToken": f"{now_ms:056d}"}
        if batch.rejected:
            out["rejectedLogEventsInfo"] = batch.rejected
        return out

    def _filter(self, ctx: Context, group: Group, stream: str, events: list[tuple[int, str]]) -> None:
        """Hold a batch that was just written, (epoch milliseconds, message), against the group's filters."""
        filters = repository.filters_of(ctx.db, group.id) if events else []
        first = repository.last_event(ctx.db) - len(events) + 1 if filters else 0
        for found in filters:
            matches = self._compiled(found.pattern)
            if found.kind == metric_filters.KIND:
                metric_filters.count(ctx.machine.meter, ctx.scope, found, matches, events)
            else:
                placed = [(Position(at, first + number), message) for number, (at, message) in enumerate(events)]
                subscriptions.send(ctx, found, matches, stream, placed)

    def append(self, ctx: Context, lines: Iterable[LogLine]) -> None:
        """Write lines in bulk; groups and streams that do not exist are made. `ctx.db.notify(topic(group))` wakes
        whoever follows the group."""
        batches: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for line in lines:
            text = f"{line.message}\n" if line.ended else line.message
            batches.setdefault((line.log_group, line.log_stream), []).append((line.at, text))
            measure(ctx.machine.meter, ctx.scope, line.message)
        now_ms = ctx.now_ms
        for (group, stream), events in batches.items():
            known = repository.find_group(ctx.db, ctx.scope, group)
            if known is None:
                repository.add_group(ctx.db, ctx.scope, group, "STANDARD", now_ms, False)
                known = repository.require_group(ctx.db, ctx.scope, group)
            found = repository.find_stream(ctx.db, known, stream)
            number = repository.add_stream(ctx.db, known.id, stream, now_ms) if found is None else found.id
            repository.add_events(ctx.db, known.id, number, events, now_ms)
            self._filter(ctx, known, stream, events)
            ctx.db.notify(repository.topic(group))

    def filter_log_events(self, ctx: Context, params: Params) -> Params:
        limit = page_limit(params, MAX_PAGE_EVENTS, MAX_PAGE_EVENTS)
        group = repository.require_group(ctx.db, ctx.scope, group_of(params))
        try:
            matches = self._compiled(params.get("filterPattern", ""))
        except BadPattern as error:
            raise invalid(f"Invalid filter pattern: {error}") from error
        chosen = self._chosen_streams(ctx, params, group)
        names: dict[int, str | None] = dict(chosen or {})
        forward = params.get("startFromHead", True)
        after: Position | None = None
        if params.get("nextToken") is not None:
            direction, after = read_token(params["nextToken"])
            forward = direction == "f"
        window = _window(ctx, params, group)
        out: list[Params] = []
        size = scanned = 0
        more = True
        while more and len(out) < limit and scanned < SCAN_MOST and size <= MAX_PAGE_BYTES:
            events = repository.read_events(ctx.db, ("group_id", group.id), window, after, SCAN_CHUNK, forward)
            more = len(events) == SCAN_CHUNK
            for number, event in enumerate(events, 1):
                scanned += 1
                after = event.position
                number_of_stream = event.stream_id
                if number_of_stream not in names:
                    known = None if chosen is not None else repository.stream_name(ctx.db, number_of_stream)
                    names[number_of_stream] = known
                name = names[number_of_stream]
                if name is not None and matches(event.message):
                    size += len(event.message)
                    shown = {"logStreamName": name, "eventId": event_id(event.position)}
                    out.append({**shown, **_show(event)})
                    if len(out) == limit or size > MAX_PAGE_BYTES:
                        more = more or number < len(events)
                        break
        reply: Params = {"events": out, "searchedLogStreams": []}
        if more and after is not None:
            reply["nextToken"] = position_token("f" if forward else "b", after)
        return reply

    def _chosen_streams(self, ctx: Context, params: Params, group: Group) -> dict[int, str] | None:
        """The streams that the request names, as {id: name}; None when it names none."""
        chosen, prefix = params.get("logStreamNames"), params.get("logStreamNamePrefix")
        if chosen is not None and prefix is not None:
            raise invalid("logStreamNamePrefix and logStreamNames are mutually exclusive parameters.")
        if chosen is not None:
            if not 1 <= len(chosen) <= MAX_STREAM_NAMES:
                raise violation("[...]", "logStreamNames", "Member must have length between 1 and 100")
            found = [repository.require_stream(ctx.db, group, stream_name(name)) for name in chosen]
        elif prefix is not None:
            found = repository.streams_by_name(ctx.db, group, prefix, None, -1, False)
        else:
            return None
        return {stream.id: stream.name for stream in found}


def build(platform: Platform) -> LogsService:
    return LogsService()
