"""The rule that EventBridge adds to a bus for each of its archives: everybody sees it, and only force takes it away."""

import json
import uuid
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.events.domain import BusName, Rule, compact
from preheat.store.database import Database

OWNER = "prod.vhs.events.aws.internal"
PREFIX = "Events-Archive-"
REASON = "Managed rule for the archive was forcefully deleted."
_ROWS = (
    "SELECT a.row, a.name, a.pattern, a.created FROM events_archives a LEFT JOIN events_archive_breaks b"
    " ON b.archive = a.row WHERE a.account = ? AND a.region = ? AND a.bus = ? AND coalesce(b.rule_gone, 0) = 0"
)


def rules(db: Database, bus: BusName) -> list[Rule]:
    """Of all archives of a bus, by name. `row` is the archive's."""
    return [_rule(bus, row) for row in db.all(f"{_ROWS} ORDER BY a.name", *bus.scope, bus.name)]


def rule(db: Database, bus: BusName, name: str) -> Rule | None:
    if not name.startswith(PREFIX):
        return None
    row = db.one(f"{_ROWS} AND a.name = ?", *bus.scope, bus.name, name.removeprefix(PREFIX))
    return None if row is None else _rule(bus, row)


def _rule(bus: BusName, row: Any) -> Rule:
    pattern = {**json.loads(row[2] or "{}"), "replay-name": [{"exists": False}]}
    return Rule(
        row[0], *bus.scope, bus.name, PREFIX + row[1], compact(pattern), None, "ENABLED", None, None, {}, row[3], None,
        OWNER,
    )  # fmt: skip


def targets(db: Database, one: Rule) -> list[dict[str, Any]]:
    """The archive itself; nothing once force took it away."""
    if broken(db, one.row):
        return []
    archive = one.scope.arn("events", f"archive/{one.name.removeprefix(PREFIX)}")
    template = (
        f'{{"archive-arn": "{archive}:{uuid.uuid5(uuid.NAMESPACE_URL, f"{archive} {one.anchor}")}",'
        ' "event": <aws.events.event.json>, "ingestion-time": <aws.events.event.ingestion-time>}'
    )
    transformer = {"InputPathsMap": {}, "InputTemplate": template}
    return [{"Id": one.name, "Arn": f"arn:aws:events:{one.region}:::", "InputTransformer": transformer}]


def broken(db: Database, archive: int) -> bool:
    """Whether force took the rule of an archive, or the rule's target, away: nothing is archived any more."""
    return db.one("SELECT 1 FROM events_archive_breaks WHERE archive = ?", archive) is not None


def take(db: Database, one: Rule, *, whole: bool) -> None:
    """Take the target away, or the `whole` rule."""
    db.run("INSERT OR REPLACE INTO events_archive_breaks VALUES (?, ?)", one.row, int(whole))


def check_force(one: Rule, force: bool) -> None:
    """Raises ManagedRuleException."""
    if one.managed_by is not None and not force:
        reason = f"{one.name} is a managed rule. Set 'force' parameter to true to override."
        raise AwsError("ManagedRuleException", reason)


def check_own(one: Rule | None) -> None:
    """For what force cannot do either. Raises ManagedRuleException."""
    if one is not None and one.managed_by is not None:
        raise AwsError("ManagedRuleException", f"{one.name} is a managed rule.")
