"""Conversations in DynamoDB: a session's head, its turns, and what of them goes into the next prompt.

Table: hash key `session`, range key `item`; index `by-user` with `owner` and `updated`. A head is the item `head`, a
turn `turn#<when>#<id>`; `turn-id#<id>` leads from a turn's id to its item; `cancel#<id>` asks that a turn be stopped.
All of them expire. Times are epoch milliseconds, `expires` epoch seconds.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ragkit.asked import Turn

KEPT_S = 30 * 86_400
CANCELLED_S = 600
LONGEST_TITLE = 80
HISTORY_TOKENS = 1_200
SUMMARY_TOKENS = 250
TOKENS_A_WORD = 1.35
MOST_TURNS = 200
HEAD = "head"

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_MARK = re.compile(r"\s*\[\d+(?:\s*[,;]\s*\d+)*\]")


class NoSession(Exception):
    """There is no such session, or it is somebody else's."""


@dataclass(frozen=True)
class Record:
    """A turn as it is kept. `status` is "done", "cancelled" or "failed"; `feedback` "up", "down" or ""."""

    session: str
    owner: str
    turn: str
    question: str
    answer: str
    created: int
    status: str = "done"
    citations: tuple[dict[str, Any], ...] = ()
    passages: tuple[dict[str, Any], ...] = ()
    usage: tuple[tuple[str, int], ...] = ()
    correlation: str = ""
    feedback: str = ""
    comment: str = ""

    def item(self) -> dict[str, Any]:
        return {
            "session": self.session, "item": f"turn#{self.created:015d}#{self.turn}", "turn": self.turn,
            "turn_owner": self.owner, "question": self.question, "answer": self.answer, "created": self.created,
            "status": self.status, "citations": [dict(one) for one in self.citations],
            "passages": [_exact(one) for one in self.passages], "usage": dict(self.usage),
            "correlation": self.correlation,
        }  # fmt: skip

    @classmethod
    def read(cls, item: dict[str, Any]) -> "Record":
        return cls(
            item["session"], item["turn_owner"], item["turn"], item["question"], item["answer"], int(item["created"]),
            item["status"], tuple(plain(one) for one in item["citations"]),
            tuple(plain(one) for one in item["passages"]),
            tuple((name, int(count)) for name, count in item["usage"].items()), item["correlation"],
            item.get("feedback", ""), item.get("comment", ""),
        )  # fmt: skip


def _exact(value: dict[str, Any]) -> dict[str, Any]:
    """DynamoDB has no binary fractions."""
    return {name: Decimal(str(one)) if isinstance(one, float) else one for name, one in value.items()}


def plain(value: Any) -> Any:
    """DynamoDB's numbers as Python's."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


class Sessions:
    """`table` is boto3's Table; `now_ms` gives the time."""

    def __init__(self, table: Any, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._table = table
        self._now_ms = now_ms

    def turns(self, session: str, owner: str) -> list[Record]:
        """The session's turns, oldest first; none of a session that is not there. Raises NoSession for another's."""
        found = self._items(session, "turn#")
        records = [Record.read(one) for one in found]
        if any(one.owner != owner for one in records):
            raise NoSession(f"there is no session {session}")
        return records

    def head(self, session: str, owner: str) -> dict[str, Any]:
        """{session, title, updated}. Raises NoSession."""
        item = self._table.get_item(Key={"session": session, "item": HEAD}, ConsistentRead=True).get("Item")
        if item is None or item["owner"] != owner:
            raise NoSession(f"there is no session {session}")
        return {"session": session, "title": item["title"], "updated": int(item["updated"])}

    def of(self, owner: str, most: int = 50) -> list[dict[str, Any]]:
        """The user's sessions, the latest first."""
        from boto3.dynamodb.conditions import Key

        found = self._table.query(
            IndexName="by-user", KeyConditionExpression=Key("owner").eq(owner), ScanIndexForward=False, Limit=most
        )["Items"]
        return [{"session": one["session"], "title": one["title"], "updated": int(one["updated"])} for one in found]

    def find(self, session: str, turn: str) -> Record | None:
        """A turn by its id, when it is finished."""
        lead = self._table.get_item(Key={"session": session, "item": f"turn-id#{turn}"}, ConsistentRead=True)
        if "Item" not in lead:
            return None
        key = {"session": session, "item": lead["Item"]["leads"]}
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return Record.read(item) if item else None

    def keep(self, record: Record) -> None:
        """Write a turn, once: the same turn again changes nothing, unless it failed before. The parts that did not get
        written are written when it comes again."""
        before = self.find(record.session, record.turn)
        if before is not None and before.status != "failed":
            return
        if before is not None:
            record = replace(record, created=before.created)
        expires = record.created // 1_000 + KEPT_S
        item = {**record.item(), "expires": expires}
        lead = {"session": record.session, "item": f"turn-id#{record.turn}", "leads": item["item"], "expires": expires}
        title = " ".join(record.question.split())[:LONGEST_TITLE]
        self._table.put_item(Item=item)
        self._table.update_item(
            Key={"session": record.session, "item": HEAD},
            UpdateExpression="SET #o = :o, title = if_not_exists(title, :t), updated = :u, expires = :e",
            ExpressionAttributeNames={"#o": "owner"},
            ExpressionAttributeValues={":o": record.owner, ":t": title, ":u": record.created, ":e": expires},
        )
        self._table.put_item(Item=lead)

    def rate(self, session: str, owner: str, turn: str, rating: str, comment: str) -> None:
        """Feedback on a turn. Raises NoSession when it is not there or another's."""
        found = self.find(session, turn)
        if found is None or found.owner != owner:
            raise NoSession(f"there is no turn {turn} in the session {session}")
        self._table.update_item(
            Key={"session": session, "item": found.item()["item"]},
            UpdateExpression="SET feedback = :f, #c = :c",
            ExpressionAttributeNames={"#c": "comment"},
            ExpressionAttributeValues={":f": rating, ":c": comment},
        )

    def cancel(self, session: str, turn: str) -> None:
        """Ask that the turn be stopped, now or when it begins."""
        expires = self._now_ms() // 1_000 + CANCELLED_S
        self._table.put_item(Item={"session": session, "item": f"cancel#{turn}", "expires": expires})

    def cancelled(self, session: str, turn: str) -> bool:
        key = {"session": session, "item": f"cancel#{turn}"}
        return "Item" in self._table.get_item(Key=key, ConsistentRead=True)

    def delete(self, session: str, owner: str) -> None:
        """Remove the session with its turns. Raises NoSession."""
        self.head(session, owner)
        with self._table.batch_writer() as batch:
            for one in self._items(session):
                batch.delete_item(Key={"session": session, "item": one["item"]})

    def _items(self, session: str, start: str = "") -> list[dict[str, Any]]:
        from boto3.dynamodb.conditions import Key

        condition = Key("session").eq(session)
        if start:
            condition = condition & Key("item").begins_with(start)
        found: list[dict[str, Any]] = []
        more: dict[str, Any] = {}
        while len(found) < MOST_TURNS:
            page = self._table.query(KeyConditionExpression=condition, ConsistentRead=True, **more)
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                break
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        return found


# -- what of it goes into a prompt ------------------------------------------------------------------------------------


def tokens(text: str) -> int:
    """About how many tokens a text has, on the safe side for English."""
    return round(len(text.split()) * TOKENS_A_WORD) + 1


def remembered(records: Sequence[Record], budget: int = HISTORY_TOKENS) -> tuple[tuple[Turn, ...], str]:
    """The last turns word by word as far as the budget goes, and a summary of those before. Turns without an answer are
    left out."""
    answered = [Turn(one.question, _MARK.sub("", one.answer)) for one in records if one.status == "done"]
    kept: list[Turn] = []
    left = budget
    while answered and tokens(answered[-1].question) + tokens(answered[-1].answer) <= left:
        left -= tokens(answered[-1].question) + tokens(answered[-1].answer)
        kept.append(answered.pop())
    return tuple(reversed(kept)), summarised(answered)


def summarised(turns: Sequence[Turn], budget: int = SUMMARY_TOKENS) -> str:
    """One line a turn, the question and the first sentence of its answer; the latest that fit."""
    lines: list[str] = []
    for turn in reversed(turns):
        first = _SENTENCE.split(turn.answer.strip(), maxsplit=1)[0]
        line = f"Asked: {turn.question.strip()} Answered: {first}"
        budget -= tokens(line)
        if budget < 0:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


