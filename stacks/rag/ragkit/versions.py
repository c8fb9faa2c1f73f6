"""Indexes in versions: which recipe made the index that answers, and which one is being built to take its place.

A recipe is everything that decides a document's chunks and vectors. Each recipe has an index of its own, so that a
rebuild fills a new one beside the old; one write to the table switches every reader. What readers hold may be
`KEPT_S` old, so the index that was replaced stays for `GRACE_S`.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from botocore.exceptions import ClientError

from ragkit.chunking import Sizes
from ragkit.resilience import passing

FORMAT = 3
"""Of this package's own cutting and metadata; a new number makes every index anew."""
KEPT_S = 5.0
GRACE_S = 900
"""The longest delay of a message, which carries the order to drop an index."""
ITEM = "index"
ATTEMPTS = 8


@dataclass(frozen=True)
class Recipe:
    """`model` and `dimension` of the vectors, `sizes` of the chunks, the kind of `store` (`stores.choice`)."""

    model: str
    dimension: int
    sizes: Sizes = field(default_factory=Sizes)
    format: int = FORMAT
    store: str = "s3vectors"

    @property
    def id(self) -> str:
        """As it was before there was a choice of stores, for the first of them."""
        item = {name: value for name, value in self.item().items() if (name, value) != ("store", "s3vectors")}
        return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def index(self) -> str:
        return f"passages-{self.id}"

    def item(self) -> dict[str, Any]:
        sizes = self.sizes
        return {
            "model": self.model, "dimension": self.dimension, "format": self.format,
            "target": sizes.target, "longest": sizes.longest, "overlap": sizes.overlap, "window": sizes.window,
            "store": self.store,
        }  # fmt: skip

    @classmethod
    def read(cls, item: dict[str, Any]) -> "Recipe":
        sizes = Sizes(*(int(item[name]) for name in ("target", "longest", "overlap", "window") if name in item))
        store = str(item.get("store", "s3vectors"))
        return cls(str(item["model"]), int(item["dimension"]), sizes, int(item["format"]), store)


@dataclass(frozen=True)
class Versions:
    """`live` answers; `building` is filled to replace it; `retired` are (recipe, since epoch seconds) that may go."""

    live: Recipe
    building: Recipe | None = None
    retired: tuple[tuple[Recipe, int], ...] = ()
    revision: int = 0

    @property
    def filled(self) -> tuple[Recipe, ...]:
        """The recipes that every document must be in."""
        return (self.live, self.building) if self.building else (self.live,)

    def begun(self, recipe: Recipe, now: int) -> "Versions":
        """With `recipe` wanted: what was being built for another one is given up."""
        given_up = ((self.building, now),) if self.building not in (None, recipe) else ()
        building = None if recipe == self.live else recipe
        kept = tuple(one for one in self.retired if one[0] != recipe)
        return replace(self, building=building, retired=(*kept, *given_up))

    def switched(self, now: int) -> "Versions":
        """With what was being built live."""
        if self.building is None:
            return self
        return replace(self, live=self.building, building=None, retired=(*self.retired, (self.live, now)))


class NoIndex(Exception):
    """The stack has no index yet."""


class Registry:
    """`table` is boto3's Table with the key `id`; `clock` gives seconds."""

    def __init__(self, table: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._kept: tuple[float, Versions] | None = None

    def current(self) -> Versions:
        """As of at most `KEPT_S` ago, or as it was last seen while the table cannot be read. Raises NoIndex."""
        kept = self._kept
        if kept is not None and self._clock() - kept[0] <= KEPT_S:
            return kept[1]
        try:
            return self.fresh()
        except Exception as error:
            if kept is None or not passing(error):
                raise
            return kept[1]

    def fresh(self) -> Versions:
        """As of now. Raises NoIndex."""
        found = self._read()
        if found is None:
            raise NoIndex("this stack's index has not been made")
        self._kept = (self._clock(), found)
        return found

    def begin(self, recipe: Recipe, now: int) -> Versions:
        """`recipe` is wanted: it is live at once where there is no index yet, else it is being built."""
        return self._change(lambda found: found.begun(recipe, now) if found else Versions(recipe))

    def switch(self, recipe: Recipe, now: int) -> bool:
        """Make `recipe` live; False when something else is being built by now."""
        after = self._change(lambda found: found.switched(now) if found and found.building == recipe else found)
        return after.live == recipe

    def forget(self, recipe: Recipe) -> None:
        """The retired `recipe`'s index is gone."""

        def without(found: Versions | None) -> Versions | None:
            return found and replace(found, retired=tuple(one for one in found.retired if one[0] != recipe))

        self._change(without)

    def _change(self, make: Callable[[Versions | None], Versions | None]) -> Versions:
        """Read, change, write; again when somebody else wrote meanwhile."""
        for _ in range(ATTEMPTS):
            before = self._read()
            after = make(before)
            if after is None:
                raise NoIndex("this stack's index has not been made")
            if after == before or self._write(after, before):
                self._kept = None
                return after
        raise RuntimeError("the index's versions are being changed by somebody else all the time")

    def _read(self) -> Versions | None:
        item = self._table.get_item(Key={"id": ITEM}, ConsistentRead=True).get("Item")
        if item is None:
            return None
        building = item.get("building")
        retired = tuple((Recipe.read(one["recipe"]), int(one["since"])) for one in item["retired"])
        live = Recipe.read(item["live"])
        return Versions(live, Recipe.read(building) if building else None, retired, int(item["revision"]))

    def _write(self, after: Versions, before: Versions | None) -> bool:
        item: dict[str, Any] = {
            "id": ITEM, "live": {"id": after.live.id, **after.live.item()}, "revision": after.revision + 1,
            "retired": [{"recipe": one.item(), "since": since} for one, since in after.retired],
        }  # fmt: skip
        if after.building:
            item["building"] = after.building.item()
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(id)"}
        if before is not None:
            condition = {
                "ConditionExpression": "revision = :seen", "ExpressionAttributeValues": {":seen": before.revision}
            }  # fmt: skip
        try:
            self._table.put_item(Item=item, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                return False
            raise
        return True
