"""Conversations in DynamoDB: a session's head, its turns, and what of them goes into the next prompt.

Table: hash key `session`, range key `item`; index `by-user` with `owner` and `updated`. A head is the item `head`, a
turn `turn#<when>#<id>`; `turn-id#<id>` leads from a turn's id to its item, and is written first: whoever writes it says
when the turn was. `cancel#<id>#<owner>` asks that a turn of the owner's be stopped. A head without `owner` is that of a
session that was deleted. All of them expire, and what has expired is not read, whether or not the table has swept it.
Times are epoch milliseconds, `expires` epoch seconds.
"""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from ragkit.asked import Turn
from ragkit.tokens import estimate, pieces

KEPT_S = 30 * 86_400
DELETED_S = 15 * 86_400
"""Longer than a turn may wait in its queue and in the dead-letter queue."""
CANCELLED_S = 600
LONGEST_TITLE = 80
HISTORY_TOKENS = 1_200
SUMMARY_TOKENS = 250
LONGEST_LINE = 80
"""Tokens of one turn's line in the summary, so that a long one does not take the others' room."""
MOST_TURNS = 200
REMEMBERED = 60
"""Turns that are read for a prompt: more than its budget has room for."""
UNFINISHED = ("failed", "broken")
HEAD = "head"
CONDITION = "ConditionalCheckFailedException"

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_MARK = re.compile(r"\s*\[\d+(?:\s*[,;]\s*\d+)*\]")


class NoSession(Exception):
    """There is no such session, or it is somebody else's."""


@dataclass(frozen=True)
class Record:
    """A turn as it is kept. `status` is "done", "blocked" (by the guardrail), "cancelled" (its owner stopped it),
    "broken" (who asked went away) or "failed"; the latter two are replaced by the turn's next attempt. `feedback` is
    "up", "down" or ""."""

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

    def turns(self, session: str, owner: str, most: int = MOST_TURNS) -> list[Record]:
        """The session's last turns, oldest first; none of a session that is not there. Raises NoSession for
        another's."""
        records = [Record.read(one) for one in self._items(session, "turn#", most)]
        if any(one.owner != owner for one in records):
            raise NoSession(f"there is no session {session}")
        return records[::-1]

    def head(self, session: str, owner: str) -> dict[str, Any]:
        """{session, title, updated}. Raises NoSession."""
        item = self._head(session)
        if item is None or item.get("owner") != owner or self._over(item):
            raise NoSession(f"there is no session {session}")
        return {"session": session, "title": item["title"], "updated": int(item["updated"])}

    def _head(self, session: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._table.get_item(
            Key={"session": session, "item": HEAD}, ConsistentRead=True
        ).get("Item")
        return found

    def _over(self, item: dict[str, Any]) -> bool:
        return int(item["expires"]) * 1_000 <= self._now_ms()

    def of(self, owner: str, most: int = 50, after: str = "") -> tuple[list[dict[str, Any]], str]:
        """The user's sessions, the latest first, and where they go on: `after` of the next call, "" at the end."""
        from boto3.dynamodb.conditions import Key

        since = self._now_ms() - KEPT_S * 1_000
        start: dict[str, Any] = {}
        if after:
            updated, _, session = after.partition(".")
            place = {"session": session, "item": HEAD, "owner": owner, "updated": int(updated)}
            start = {"ExclusiveStartKey": place}
        found = self._table.query(
            IndexName="by-user", KeyConditionExpression=Key("owner").eq(owner) & Key("updated").gt(since),
            ScanIndexForward=False, Limit=most, **start,
        )  # fmt: skip
        last = found.get("LastEvaluatedKey")
        following = f"{int(last['updated'])}.{last['session']}" if last else ""
        listed = found["Items"]
        return [
            {"session": one["session"], "title": one["title"], "updated": int(one["updated"])} for one in listed
        ], following

    def find(self, session: str, turn: str) -> Record | None:
        """A turn by its id, when it is finished."""
        lead = self._table.get_item(Key={"session": session, "item": f"turn-id#{turn}"}, ConsistentRead=True)
        if "Item" not in lead:
            return None
        key = {"session": session, "item": lead["Item"]["leads"]}
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return Record.read(item) if item else None

    def keep(self, record: Record) -> None:
        """Write a turn, once, whoever else writes it now: the same turn again changes nothing, unless it was not
        finished before. The parts that did not get written are written when it comes again. Raises NoSession when the
        session is somebody else's, or was deleted after the turn was asked."""
        expires = record.created // 1_000 + KEPT_S
        self._own(record, expires)
        lead = {"session": record.session, "item": f"turn-id#{record.turn}"}
        here = {"#i": "item"}
        leads = {"leads": record.item()["item"], "expires": expires}
        if not self._put({**lead, **leads}, "attribute_not_exists(#i)", here):
            first = self._table.get_item(Key=lead, ConsistentRead=True)["Item"]["leads"]
            record = replace(record, created=int(first.split("#")[1]))
        values = {f":{one}": one for one in UNFINISHED}
        condition = f"attribute_not_exists(#i) OR #s IN ({', '.join(values)})"
        self._put({**record.item(), "expires": expires}, condition, {**here, "#s": "status"}, values)

    def _own(self, record: Record, expires: int) -> None:
        """Make or renew the session's head. Raises NoSession."""
        title = " ".join(record.question.split())[:LONGEST_TITLE]
        try:
            self._table.update_item(
                Key={"session": record.session, "item": HEAD},
                UpdateExpression="SET #o = :o, title = if_not_exists(title, :t), updated = :u, expires = :e"
                " REMOVE deleted, deleted_by",
                ConditionExpression="(attribute_not_exists(#o) OR #o = :o)"
                " AND (attribute_not_exists(deleted) OR deleted < :u)",
                ExpressionAttributeNames={"#o": "owner"},
                ExpressionAttributeValues={":o": record.owner, ":t": title, ":u": record.created, ":e": expires},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != CONDITION:
                raise
            raise NoSession(f"there is no session {record.session}") from error

    def _put(self, item: dict[str, Any], condition: str, names: dict[str, str], values: Any = None) -> bool:
        """False when the condition does not hold."""
        given = {"ExpressionAttributeValues": values} if values else {}
        try:
            self._table.put_item(
                Item=item, ConditionExpression=condition, ExpressionAttributeNames=names, **given
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != CONDITION:
                raise
            return False
        return True

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

    def cancel(self, session: str, owner: str, turn: str) -> None:
        """Ask that the owner's turn be stopped, now or when it begins."""
        expires = self._now_ms() // 1_000 + CANCELLED_S
        self._table.put_item(Item={"session": session, "item": f"cancel#{turn}#{owner}", "expires": expires})

    def cancelled(self, session: str, owner: str, turn: str) -> bool:
        key = {"session": session, "item": f"cancel#{turn}#{owner}"}
        item = self._table.get_item(Key=key, ConsistentRead=True).get("Item")
        return item is not None and not self._over(item)

    def delete(self, session: str, owner: str) -> None:
        """Remove the session with its turns, and those that are still on their way. Raises NoSession."""
        item = self._head(session)
        if item is None or owner not in (item.get("owner"), item.get("deleted_by")):
            raise NoSession(f"there is no session {session}")
        now = self._now_ms()
        gone = {"deleted": now, "deleted_by": owner, "expires": now // 1_000 + DELETED_S}
        self._table.put_item(Item={"session": session, "item": HEAD, **gone})
        with self._table.batch_writer() as batch:
            for name in self._names(session):
                if name != HEAD:
                    batch.delete_item(Key={"session": session, "item": name})

    def _names(self, session: str) -> list[str]:
        """The range keys of all that is kept of the session."""
        return [
            one["item"]
            for page in self._pages(
                session, "", ProjectionExpression="#i", ExpressionAttributeNames={"#i": "item"}
            )
            for one in page
        ]  # fmt: skip

    def _items(self, session: str, start: str, most: int) -> list[dict[str, Any]]:
        """The last `most` that have not expired, the latest first."""
        found: list[dict[str, Any]] = []
        for page in self._pages(session, start, ScanIndexForward=False, Limit=most):
            found += [one for one in page if not self._over(one)]
            if len(found) >= most:
                break
        return found[:most]

    def _pages(self, session: str, start: str, **more: Any) -> Iterator[list[dict[str, Any]]]:
        from boto3.dynamodb.conditions import Key

        condition = Key("session").eq(session)
        if start:
            condition = condition & Key("item").begins_with(start)
        while True:
            page = self._table.query(KeyConditionExpression=condition, ConsistentRead=True, **more)
            yield page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            more = {**more, "ExclusiveStartKey": page["LastEvaluatedKey"]}


# -- what of it goes into a prompt ------------------------------------------------------------------------------------


def tokens(text: str) -> int:
    """About how many tokens a text has."""
    return math.ceil(estimate(text))


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
    """One line a turn, the question and the first sentence of its answer, long ones shortened; the latest that fit."""
    lines: list[str] = []
    for turn in reversed(turns):
        first = _SENTENCE.split(turn.answer.strip(), maxsplit=1)[0]
        question = _shortened(turn.question.strip(), LONGEST_LINE // 2)
        line = f"Asked: {question} Answered: {_shortened(first, LONGEST_LINE // 2)}"
        budget -= tokens(line)
        if budget < 0:
            break
        lines.append(line)
    return "\n".join(reversed(lines))


def _shortened(text: str, most: int) -> str:
    return text if tokens(text) <= most else pieces(text, most)[0] + "…"
