"""Archives keep a bus's events; replays send them again."""

import json
from typing import Any, NamedTuple

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.constraints import check_choice, check_number, check_text
from preheat.services.contract import Context, Operation, Outcome, Params
from preheat.services.events import domain, managed, repository
from preheat.services.events.domain import BusName, bad_parameter, bus_named, moment
from preheat.services.events.routing import Router
from preheat.services.events.rules import Rules
from preheat.store.database import Database

REPLAYS = "events:replays"
ARCHIVES = "events:archives"
EXPIRE_EVERY_S = 3_600.0
EVENTS_PER_STEP = 100
STATES = ("ENABLED", "DISABLED", "CREATING", "UPDATING", "CREATE_FAILED", "UPDATE_FAILED")
REPLAY_STATES = ("STARTING", "RUNNING", "CANCELLING", "COMPLETED", "CANCELLED", "FAILED")
OPEN_STATES = ("STARTING", "RUNNING", "CANCELLING")
_ARCHIVE = "row, account, region, name, bus, pattern, description, retention_days, created"
_REPLAY = (
    "row, account, region, name, archive, bus, filters, description, since, until, state, reason, started, ended,"
    " done_at, done_row"
)


class Archive(NamedTuple):
    row: int
    account: str
    region: str
    name: str
    bus: str
    pattern: str | None
    description: str | None
    retention_days: int
    created: float

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)

    @property
    def arn(self) -> str:
        return self.scope.arn("events", f"archive/{self.name}")


class Replay(NamedTuple):
    """`since` to `until` are the events' times, `done_at` and `done_row` the last one that was sent."""

    row: int
    account: str
    region: str
    name: str
    archive: str
    bus: str
    filters: list[str]
    description: str | None
    since: float
    until: float
    state: str
    reason: str | None
    started: float
    ended: float | None
    done_at: float | None
    done_row: int

    @property
    def scope(self) -> Scope:
        return Scope(self.account, self.region)


def _archive(db: Database, scope: Scope, name: str) -> Archive | None:
    row = db.one(f"SELECT {_ARCHIVE} FROM events_archives WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else Archive(*row)


def _replay_of(row: Any) -> Replay:
    return Replay(*row[:6], json.loads(row[6]), *row[7:])


def _replay(db: Database, scope: Scope, name: str) -> Replay | None:
    row = db.one(f"SELECT {_REPLAY} FROM events_replays WHERE account = ? AND region = ? AND name = ?", *scope, name)
    return None if row is None else _replay_of(row)


class Archives:
    def __init__(self, router: Router, rules: Rules) -> None:
        self._router = router
        self._rules = rules
        self.operations: dict[str, Operation] = {
            "CreateArchive": self.create_archive,
            "UpdateArchive": self.update_archive,
            "DescribeArchive": self.describe_archive,
            "ListArchives": self.list_archives,
            "DeleteArchive": self.delete_archive,
            "StartReplay": self.start_replay,
            "DescribeReplay": self.describe_replay,
            "ListReplays": self.list_replays,
            "CancelReplay": self.cancel_replay,
        }

    # -- archives ---------------------------------------------------------------------------------------------------

    def _checked(self, params: Params) -> None:
        domain.check_name(params, "ArchiveName", 48)
        check_text(params, "Description", 512)
        check_number(params, "RetentionDays", 0)
        if params.get("KmsKeyIdentifier"):
            raise domain.invalid("Preheat does not implement KmsKeyIdentifier: there is no KMS.")
        if params.get("EventPattern"):
            self._rules.compiled(params["EventPattern"])

    def _found(self, ctx: Context, params: Params) -> Archive:
        domain.check_name(params, "ArchiveName", 48)
        found = _archive(ctx.db, ctx.scope, params["ArchiveName"])
        if found is None:
            raise domain.not_found(f"Archive {params['ArchiveName']} does not exist.")
        return found

    def create_archive(self, ctx: Context, params: Params) -> Outcome:
        self._checked(params)
        name = params["ArchiveName"]
        bus = self._source(ctx, params["EventSourceArn"])
        if _archive(ctx.db, ctx.scope, name) is not None:
            raise domain.exists(f"Archive {name} already exists.")
        ctx.db.insert(
            "INSERT INTO events_archives (account, region, name, bus, pattern, description, retention_days, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *ctx.scope, name, bus.name, params.get("EventPattern") or None, params.get("Description"),
            params.get("RetentionDays", 0), ctx.now,
        )  # fmt: skip
        return self._stored(ctx, name)

    def _source(self, ctx: Context, arn: str) -> BusName:
        try:
            parsed = Arn.parse(arn)
        except ValueError:
            parsed = None
        if parsed is None or not parsed.resource.startswith("event-bus/"):
            raise bad_parameter("EventSourceArn", "Must contain an event bus ARN.")
        bus = bus_named(ctx.scope, arn)
        if bus.scope != ctx.scope or repository.bus(ctx.db, *bus) is None:
            raise domain.no_bus(bus.name)
        return bus

    def _stored(self, ctx: Context, name: str) -> Params:
        archive = self._found(ctx, {"ArchiveName": name})
        self._router.changed(ctx, BusName(archive.scope, archive.bus))
        ctx.db.notify(ARCHIVES)
        return {"ArchiveArn": archive.arn, "State": _state(ctx, archive), "CreationTime": moment(archive.created)}

    def update_archive(self, ctx: Context, params: Params) -> Outcome:
        self._checked(params)
        archive = self._found(ctx, params)
        ctx.db.run(
            "UPDATE events_archives SET pattern = ?, description = ?, retention_days = ? WHERE row = ?",
            params.get("EventPattern", archive.pattern) or None, params.get("Description", archive.description),
            params.get("RetentionDays", archive.retention_days), archive.row,
        )  # fmt: skip
        return self._stored(ctx, archive.name)

    def _shown(self, ctx: Context, archive: Archive) -> Params:
        least = self._least(archive, ctx.now)
        count, size = ctx.db.one(
            "SELECT count(*), coalesce(sum(length(cast(event AS BLOB))), 0) FROM events_archived"
            " WHERE archive = ? AND at > ?",
            archive.row, least,
        ) or (0, 0)  # fmt: skip
        return {
            "ArchiveName": archive.name,
            "EventSourceArn": domain.bus_arn(archive.scope, archive.bus),
            "State": _state(ctx, archive),
            "RetentionDays": archive.retention_days,
            "SizeBytes": size,
            "EventCount": count,
            "CreationTime": moment(archive.created),
        }

    def _least(self, archive: Archive, now: float) -> float:
        """What came in at this moment or before is no longer kept."""
        return now - archive.retention_days * domain.DAY_S if archive.retention_days else float("-inf")

    def describe_archive(self, ctx: Context, params: Params) -> Outcome:
        archive = self._found(ctx, params)
        output = {"ArchiveArn": archive.arn, **self._shown(ctx, archive)}
        reason = managed.REASON if output["State"] == "DISABLED" else None
        for member, value in (
            ("Description", archive.description), ("EventPattern", archive.pattern), ("StateReason", reason)
        ):  # fmt: skip
            if value is not None:
                output[member] = value
        return output

    def list_archives(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "NamePrefix", 48)
        check_choice(params, "State", STATES)
        _check_filters(params, "ListArchives")
        rows = ctx.db.all(
            f"SELECT {_ARCHIVE} FROM events_archives WHERE account = ? AND region = ? ORDER BY name", *ctx.scope
        )
        found = [Archive(*row) for row in rows]
        if params.get("EventSourceArn"):
            bus = self._source(ctx, params["EventSourceArn"])
            found = [archive for archive in found if archive.bus == bus.name]
        if params.get("State"):
            found = [archive for archive in found if _state(ctx, archive) == params["State"]]
        found = [archive for archive in found if archive.name.startswith(params.get("NamePrefix", ""))]
        return domain.paged(
            found, params, "Archives", lambda archive: archive.name, lambda archive: self._shown(ctx, archive)
        )

    def delete_archive(self, ctx: Context, params: Params) -> Outcome:
        archive = self._found(ctx, params)
        ctx.db.run("DELETE FROM events_archives WHERE row = ?", archive.row)
        self._router.changed(ctx, BusName(archive.scope, archive.bus))
        return {}

    def expire(self, ctx: Context) -> float | None:
        """Remove what archives need not keep any longer. When to come again."""
        rows = ctx.db.all(f"SELECT {_ARCHIVE} FROM events_archives WHERE retention_days > 0")
        for row in rows:
            archive = Archive(*row)
            least = self._least(archive, ctx.now)
            ctx.db.run("DELETE FROM events_archived WHERE archive = ? AND at <= ?", archive.row, least)
        return ctx.now + EXPIRE_EVERY_S if rows else None

    # -- replays ----------------------------------------------------------------------------------------------------

    def start_replay(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "ReplayName")
        check_text(params, "Description", 512)
        name, destination = params["ReplayName"], params["Destination"]
        source = Arn.parse(params["EventSourceArn"]).resource if params["EventSourceArn"].count(":") > 4 else ""
        if not source.startswith("archive/"):
            raise bad_parameter("EventSourceArn", "Must contain an archive ARN.")
        if ":event-bus/" not in destination["Arn"]:
            raise bad_parameter("Destination.Arn", "Must contain an event bus ARN.")
        bus = bus_named(ctx.scope, destination["Arn"])
        if repository.bus(ctx.db, *bus) is None:
            raise domain.no_bus(bus.name)
        archive = _archive(ctx.db, ctx.scope, source.removeprefix("archive/"))
        if archive is None:
            raise bad_parameter("EventSourceArn", f"Archive {source.removeprefix('archive/')} does not exist.")
        if BusName(archive.scope, archive.bus) != bus:
            raise bad_parameter("Destination.Arn", "Cross event bus replay is not permitted.")
        since, until = params["EventStartTime"].timestamp(), params["EventEndTime"].timestamp()
        if since >= until:
            raise bad_parameter("EventEndTime", "EventStartTime must be before EventEndTime.")
        if _replay(ctx.db, ctx.scope, name) is not None:
            raise domain.exists(f"Replay {name} already exists.")
        if self._running(ctx) >= domain.MAX_REPLAYS:
            raise domain.too_many()
        ctx.db.insert(
            "INSERT INTO events_replays (account, region, name, archive, bus, filters, description, since, until,"
            " state, started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'STARTING', ?)",
            *ctx.scope, name, archive.name, archive.bus, json.dumps(destination.get("FilterArns", [])),
            params.get("Description"), since, until, ctx.now,
        )  # fmt: skip
        ctx.db.notify(REPLAYS)
        arn = ctx.scope.arn("events", f"replay/{name}")
        return {"ReplayArn": arn, "State": "STARTING", "ReplayStartTime": moment(ctx.now)}

    def _running(self, ctx: Context) -> int:
        return ctx.db.value(
            "SELECT count(*) FROM events_replays WHERE account = ? AND region = ? AND state IN (?, ?, ?)",
            *ctx.scope, *OPEN_STATES,
        )  # fmt: skip

    def _found_replay(self, ctx: Context, params: Params) -> Replay:
        domain.check_name(params, "ReplayName")
        found = _replay(ctx.db, ctx.scope, params["ReplayName"])
        if found is None:
            raise domain.not_found(f"Replay {params['ReplayName']} does not exist.")
        return found

    def describe_replay(self, ctx: Context, params: Params) -> Outcome:
        replay = self._found_replay(ctx, params)
        destination: Params = {"Arn": domain.bus_arn(replay.scope, replay.bus)}
        if replay.filters:
            destination["FilterArns"] = replay.filters
        arn = replay.scope.arn("events", f"replay/{replay.name}")
        output = {"ReplayArn": arn, "Destination": destination, **_shown_replay(replay)}
        if replay.description is not None:
            output["Description"] = replay.description
        return output

    def list_replays(self, ctx: Context, params: Params) -> Outcome:
        domain.check_name(params, "NamePrefix")
        check_choice(params, "State", REPLAY_STATES)
        _check_filters(params, "ListReplays")
        rows = ctx.db.all(
            f"SELECT {_REPLAY} FROM events_replays WHERE account = ? AND region = ? ORDER BY name", *ctx.scope
        )
        wanted = params.get("EventSourceArn")
        found = [
            replay
            for replay in map(_replay_of, rows)
            if replay.name.startswith(params.get("NamePrefix", ""))
            and params.get("State") in (None, replay.state)
            and wanted in (None, replay.scope.arn("events", f"archive/{replay.archive}"))
        ]
        return domain.paged(found, params, "Replays", lambda replay: replay.name, _shown_replay)

    def cancel_replay(self, ctx: Context, params: Params) -> Outcome:
        replay = self._found_replay(ctx, params)
        if replay.state not in ("STARTING", "RUNNING"):
            reason = f"Replay {replay.name} is not in a valid state for this operation."
            raise AwsError("IllegalStatusException", reason)
        ctx.db.run("UPDATE events_replays SET state = 'CANCELLING' WHERE row = ?", replay.row)
        ctx.db.notify(REPLAYS)
        arn = replay.scope.arn("events", f"replay/{replay.name}")
        return {"ReplayArn": arn, "State": "CANCELLING"}

    def advance(self, ctx: Context) -> bool:
        """Send some of the events of every replay under way, in the order in which they came in. Whether there are
        more."""
        more = False
        for row in ctx.db.all(f"SELECT {_REPLAY} FROM events_replays WHERE state IN (?, ?, ?)", *OPEN_STATES):
            more = self._advance(ctx, _replay_of(row)) or more
        return more

    def _advance(self, ctx: Context, replay: Replay) -> bool:
        if replay.state == "CANCELLING":
            self._end(ctx, replay, "CANCELLED", None)
            return False
        archive = _archive(ctx.db, replay.scope, replay.archive)
        bus = BusName(replay.scope, replay.bus)
        if archive is None or repository.bus(ctx.db, *bus) is None:
            self._end(ctx, replay, "FAILED", "The archive or the event bus was deleted.")
            return False
        if replay.state == "STARTING":
            ctx.db.run("UPDATE events_replays SET state = 'RUNNING' WHERE row = ?", replay.row)
            return True
        least = max(replay.since, self._least(archive, ctx.now))
        rows = ctx.db.all(
            "SELECT row, at, event FROM events_archived WHERE archive = ? AND at >= ? AND at < ? AND (at, row) > (?, ?)"
            " ORDER BY at, row LIMIT ?",
            archive.row, least, replay.until, replay.done_at or float("-inf"), replay.done_row, EVENTS_PER_STEP,
        )  # fmt: skip
        for _, _, text in rows:
            event = domain.replayed(json.loads(text), replay.name)
            self._router.route(ctx, bus, event, only=replay.filters)
        if not rows:
            self._end(ctx, replay, "COMPLETED", None)
            return False
        ctx.db.run(
            "UPDATE events_replays SET done_at = ?, done_row = ? WHERE row = ?", rows[-1][1], rows[-1][0], replay.row
        )
        return True

    def _end(self, ctx: Context, replay: Replay, state: str, reason: str | None) -> None:
        ctx.db.run(
            "UPDATE events_replays SET state = ?, reason = ?, ended = ? WHERE row = ?",
            state, reason, ctx.now, replay.row,
        )  # fmt: skip


def _check_filters(params: Params, operation: str) -> None:
    if sum(bool(params.get(member)) for member in ("NamePrefix", "EventSourceArn", "State")) > 1:
        raise domain.invalid(
            f"At most one filter is allowed for {operation}. Use either : State, EventSourceArn, or NamePrefix."
        )


def _state(ctx: Context, archive: Archive) -> str:
    return "DISABLED" if managed.broken(ctx.db, archive.row) else "ENABLED"


def _shown_replay(replay: Replay) -> Params:
    output: Params = {
        "ReplayName": replay.name,
        "EventSourceArn": replay.scope.arn("events", f"archive/{replay.archive}"),
        "State": replay.state,
        "EventStartTime": moment(replay.since),
        "EventEndTime": moment(replay.until),
        "ReplayStartTime": moment(replay.started),
    }
    for member, value in (("EventLastReplayedTime", replay.done_at), ("ReplayEndTime", replay.ended)):
        if value is not None:
            output[member] = moment(value)
    if replay.reason is not None:
        output["StateReason"] = replay.reason
    return output
