"""Findings: what the platform noticed about a deployment that its owner should change.

A finding is a row, so that it outlives a restart. Whoever notices it writes it in its own transaction; the same kind
about the same subject is one finding that is counted up. It is served at `GET /_preheat/findings`.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from preheat.store.database import Database

Severity = Literal["high", "medium", "low"]
SEVERITIES: tuple[Severity, ...] = ("high", "medium", "low")

SCHEMA = """
CREATE TABLE IF NOT EXISTS findings (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    settings TEXT NOT NULL,
    tally TEXT NOT NULL,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, subject)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` is a short name, `subject` the ARN it is about; `text` says what and why. `settings` are the settings to
    look at with their present values (None: not set), `tally` what was counted ("MessagesLostToDeadLetterQueue")."""

    kind: str
    subject: str
    severity: Severity
    title: str
    text: str
    settings: dict[str, Any] = field(default_factory=dict)
    tally: dict[str, int] = field(default_factory=dict)


def install(db: Database) -> None:
    """Make the table; at start, by every service that writes findings."""
    db.apply_schema("findings", SCHEMA)


def report(db: Database, now: float, finding: Finding) -> None:
    """Write a finding; one of the same kind and subject takes the new words, and the tallies add up."""
    known = db.value("SELECT tally FROM findings WHERE kind = ? AND subject = ?", finding.kind, finding.subject)
    tally = dict(finding.tally)
    for name, count in json.loads(known or "{}").items():
        tally[name] = tally.get(name, 0) + count
    db.run(
        """INSERT INTO findings (kind, subject, severity, title, text, settings, tally, first_seen, last_seen, count)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1)
           ON CONFLICT (kind, subject) DO UPDATE SET severity = excluded.severity, title = excluded.title,
               text = excluded.text, settings = excluded.settings, tally = excluded.tally,
               last_seen = excluded.last_seen, count = count + 1""",
        finding.kind, finding.subject, finding.severity, finding.title, finding.text, json.dumps(finding.settings),
        json.dumps(tally), now, now,
    )  # fmt: skip


def settle(db: Database, now: float, subject: str, kinds: tuple[str, ...], found: list[Finding]) -> None:
    """Bring the findings of these kinds about a subject up to date: those not in `found` no longer hold and go; those
    that say what they said before stay as they are."""
    rows = db.all("SELECT kind, severity, text, settings FROM findings WHERE subject = ?", subject)
    known = {row["kind"]: row for row in rows}
    wanted = {finding.kind: finding for finding in found}
    for kind in kinds:
        row, finding = known.get(kind), wanted.get(kind)
        if finding is None:
            if row is not None:
                db.run("DELETE FROM findings WHERE kind = ? AND subject = ?", kind, subject)
            continue
        said = None if row is None else (row["severity"], row["text"], json.loads(row["settings"]))
        if said != (finding.severity, finding.text, finding.settings):
            report(db, now, finding)


def forget(db: Database, subject: str) -> None:
    """What it was about is gone."""
    if db.value("SELECT 1 FROM findings WHERE subject = ? LIMIT 1", subject):
        db.run("DELETE FROM findings WHERE subject = ?", subject)


def everything(db: Database) -> list[dict[str, Any]]:
    """Every finding as JSON, the gravest first, then the newest: `id`, the members of Finding, `first_seen` and
    `last_seen` (epoch seconds) and `count`."""
    rows = [
        {
            "id": f"{row['kind']}/{row['subject']}",
            "kind": row["kind"],
            "subject": row["subject"],
            "severity": row["severity"],
            "title": row["title"],
            "text": row["text"],
            "settings": json.loads(row["settings"]),
            "tally": json.loads(row["tally"]),
            "first_seen": row["first_seen"],
            "last_seen": row["last_seen"],
            "count": row["count"],
        }
        for row in db.all("SELECT * FROM findings")
    ]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row["severity"]), -row["last_seen"], row["id"]))
