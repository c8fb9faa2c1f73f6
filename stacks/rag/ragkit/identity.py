"""Who asks: by an access key of the stack, or nobody in particular.

Table: hash key `id`, the SHA-256 of the key in hex, so that the table gives no key away; `owner`, `labels`, and the
owner's own `requests_a_minute` and `tokens_a_day` where they differ from the stack's.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ragkit.asked import PUBLIC, User
from ragkit.limits import Allowance

KEPT_S = 30.0
PREFIX = "rag-"
VISITOR = "visitor:"
_VISITOR = re.compile(r"[A-Za-z0-9-]{8,64}")


class Unknown(Exception):
    """The key is not one of this stack's."""


@dataclass(frozen=True)
class Caller:
    """`counted` is whose limits count: the key's owner, else the address, since a browser may name itself anew with
    each request. `named` is whether the user can be told from others at the same address."""

    user: User
    allowance: Allowance
    counted: str = ""
    named: bool = True
    has_key: bool = True


class Directory:
    """`table` is boto3's Table; `usual` is what a caller may ask without an allowance of its own; `clock` gives
    seconds. A key that was taken back is good for `KEPT_S` more in an environment that has just seen it."""

    def __init__(self, table: Any, usual: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._usual = usual
        self._clock = clock
        self._kept: dict[str, tuple[float, Caller]] = {}

    def of(self, headers: dict[str, str], address: str = "") -> Caller:
        """`headers` in lower case. Without `authorization` the browser's own `x-visitor` tells visitors apart, else
        their address. Raises Unknown."""
        given = headers.get("authorization", "")
        if not given:
            visitor = headers.get("x-visitor", "")
            named = _VISITOR.fullmatch(visitor) is not None
            user = User(f"{VISITOR}{visitor if named else address or 'anonymous'}")
            return Caller(user, self._usual, f"{VISITOR}{address}" if address else user.id, named, False)
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unknown("send the access key as `authorization: Bearer KEY`")
        return self._known(digest(key.strip()))

    def _known(self, id: str) -> Caller:
        kept = self._kept.get(id)
        if kept is None or self._clock() - kept[0] > KEPT_S:
            item = self._table.get_item(Key={"id": id}, ConsistentRead=True).get("Item")
            if item is None:
                self._kept.pop(id, None)
                raise Unknown("the access key is not known")
            labels = tuple(sorted({PUBLIC, *item.get("labels", ())}))
            usual = self._usual
            allowance = Allowance(
                int(item.get("requests_a_minute", usual.requests_a_minute)),
                int(item.get("tokens_a_day", usual.tokens_a_day)),
            )
            kept = self._kept[id] = (self._clock(), Caller(User(item["owner"], labels), allowance, item["owner"]))
        return kept[1]


def folder_of(user: User) -> str:
    """The name of the user's folder of documents, which those who see the documents see: it does not say the id."""
    return digest(user.id)[:24]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(24)
