"""What is asked, by whom, in which conversation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PUBLIC = "public"
"""The label of documents that everybody may see, and of those that say nothing."""


@dataclass(frozen=True)
class User:
    """`id` is whose sessions, limits and budget these are; `labels` are those of the documents that may be seen."""

    id: str = "anonymous"
    labels: tuple[str, ...] = (PUBLIC,)

    def may_see(self) -> dict[str, Any]:
        """The metadata filter that lets through what this user may see, and nothing else."""
        return {"labels": {"$in": list(self.labels)}}


@dataclass(frozen=True)
class Turn:
    """A question that was asked earlier and its answer; `answer` is empty while there is none."""

    question: str
    answer: str = ""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Asked:
    """A question in its conversation. `turn` is the turn's id: the same id is the same turn, however often it comes.
    `earlier` are the turns before it, oldest first, as far as the budget keeps them word by word; `summary` is what is
    kept of those before. `where` narrows by metadata, on top of what the user may see. `cancelled` is asked between
    tokens. `notice` is what the reader of the answer should know about the question."""

    question: str
    user: User = User()
    session: str = ""
    turn: str = ""
    earlier: tuple[Turn, ...] = ()
    summary: str = ""
    where: dict[str, Any] | None = None
    cancelled: Callable[[], bool] = field(default=_never, compare=False)
    notice: str = ""

    def filter(self) -> dict[str, Any]:
        seen = self.user.may_see()
        return {"$and": [seen, self.where]} if self.where else seen
