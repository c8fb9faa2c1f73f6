"""CloudWatch's SQL, named."""

import json
from typing import NamedTuple

from preheat.kernel.meter import Dimensions, Sample, Series
from preheat.kernel.scope import Scope
from preheat.store.database import Database


class Stored(NamedTuple):
    """A metric as it is listed; `seen` is when it was last written to."""

    row: int
    namespace: str
    name: str
    dimensions: Dimensions
    unit: str
    seen: float


def _text(dimensions: Dimensions) -> str:
    return json.dumps(dimensions, separators=(",", ":"), ensure_ascii=False)


def _stored(row) -> Stored:
    dimensions = tuple((name, value) for name, value in json.loads(row[3]))
    return Stored(row[0], row[1], row[2], dimensions, row[4], row[5])


def add(db: Database, series: Series, start: int, width: int, sample: Sample, now: float) -> None:
    """Merge one interval's statistics into what is there."""
    number = db.value(
        "INSERT INTO cloudwatch_series (account, region, namespace, name, dimensions, unit, seen) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET seen = max(seen, excluded.seen) RETURNING row",
        *series.scope, series.namespace, series.name, _text(series.dimensions), series.unit, now,
    )  # fmt: skip
    known = db.value(
        "SELECT distribution FROM cloudwatch_samples WHERE series = ? AND start = ? AND width = ?", number, start, width
    )
    distribution = dict(sample.distribution)
    for value, times in json.loads(known).items() if known else ():
        distribution[float(value)] = distribution.get(float(value), 0) + times
    db.run(
        "INSERT INTO cloudwatch_samples VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "count = count + excluded.count, total = total + excluded.total, minimum = min(minimum, excluded.minimum), "
        "maximum = max(maximum, excluded.maximum), distribution = excluded.distribution",
        number, start, width, sample.count, sample.total, sample.minimum, sample.maximum, json.dumps(distribution),
    )  # fmt: skip


def samples(
    db: Database, scope: Scope, namespace: str, name: str, dimensions: Dimensions, start: float, end: float
) -> list[tuple[str, int, int, Sample]]:
    """(unit, start, width, statistics) of one metric from `start` to before `end`, oldest first."""
    rows = db.all(
        "SELECT s.unit, p.start, p.width, p.count, p.total, p.minimum, p.maximum, p.distribution "
        "FROM cloudwatch_series s JOIN cloudwatch_samples p ON p.series = s.row WHERE s.account = ? AND s.region = ? "
        "AND s.namespace = ? AND s.name = ? AND s.dimensions = ? AND p.start >= ? AND p.start < ? ORDER BY p.start",
        *scope, namespace, name, _text(dimensions), start, end,
    )  # fmt: skip
    found = []
    for unit, at, width, count, total, minimum, maximum, distribution in rows:
        values = {float(value): times for value, times in json.loads(distribution).items()}
        found.append((unit, at, width, Sample(count, total, minimum, maximum, values)))
    return found


def metrics(db: Database, scope: Scope, since: float, namespace: str | None, name: str | None) -> list[Stored]:
    rows = db.all(
        "SELECT row, namespace, name, dimensions, unit, seen FROM cloudwatch_series WHERE account = ? AND region = ? "
        "AND seen >= ? AND (? IS NULL OR namespace = ?) AND (? IS NULL OR name = ?) "
        "ORDER BY namespace, name, dimensions",
        *scope, since, namespace, namespace, name, name,
    )  # fmt: skip
    return [_stored(row) for row in rows]


def forget(db: Database, before: float, fine_before: float) -> None:
    """Drop what is older than it is kept: minutes from `before` on, seconds from `fine_before` on."""
    db.run("DELETE FROM cloudwatch_samples WHERE start < ? OR (width < 60 AND start < ?)", before, fine_before)
    db.run(
        "DELETE FROM cloudwatch_series WHERE seen < ? AND row NOT IN (SELECT series FROM cloudwatch_samples)", before
    )
