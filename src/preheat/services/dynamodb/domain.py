"""Tables, indexes and keys as values; rules without I/O."""

import zlib
from dataclasses import dataclass

from preheat.services.dynamodb.paths import Tree, project, tree
from preheat.services.dynamodb.values import (
    Item,
    Value,
    invalid,
    invalid_parameter,
    item_size,
    normalise,
    order_key,
)

MAX_HASH_BYTES = 2_048
MAX_RANGE_BYTES = 1_024
FIVE_YEARS_S = 5 * 365 * 86_400

Key = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class KeyPart:
    """A key attribute; `kind` is "S", "N" or "B"."""

    name: str
    kind: str


def encode_hash(value: Value) -> bytes:
    """Four bytes of hash, then the value: what a partition key is stored as."""
    raw = order_key(value)
    return zlib.crc32(raw).to_bytes(4, "big") + raw


@dataclass(frozen=True, slots=True)
class KeySchema:
    hash: KeyPart
    range: KeyPart | None = None

    @property
    def parts(self) -> tuple[KeyPart, ...]:
        return (self.hash,) if self.range is None else (self.hash, self.range)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    def encode(self, item: Item) -> Key:
        """The stored form of a checked item's key."""
        return (
            encode_hash(item[self.hash.name]),
            b"" if self.range is None else order_key(item[self.range.name]),
        )

    def of_item(self, item: Item) -> Key:
        """The key of a normalised item. Raises ValidationException when the item has no proper key."""
        for part in self.parts:
            value = item.get(part.name)
            if value is None:
                raise invalid_parameter(f"Missing the key {part.name} in the item")
            if part.kind not in value:
                raise invalid_parameter(
                    f"Type mismatch for key {part.name} expected: {part.kind} actual: {next(iter(value))}"
                )
            _require_content(part, value)
        return self._encode_bounded(item)

    def of_key(self, key: Item) -> Key:
        """The stored form of a request's `Key`. Raises ValidationException when it does not fit the schema."""
        parts = self.parts
        if len(key) != len(parts):
            raise invalid("The provided key element does not match the schema")
        normal = {}
        for part in parts:
            value = key.get(part.name)
            if value is None:
                raise invalid("The provided key element does not match the schema")
            value = normalise(value)[0]
            if part.kind not in value:
                raise invalid("The provided key element does not match the schema")
            _require_content(part, value)
            normal[part.name] = value
        return self._encode_bounded(normal)

    def _encode_bounded(self, item: Item) -> Key:
        pk, sk = self.encode(item)
        if len(pk) > MAX_HASH_BYTES + 4:
            raise invalid_parameter("Size of hashkey has exceeded the maximum size limit of2048 bytes")
        if len(sk) > MAX_RANGE_BYTES:
            raise invalid_parameter("Aggregated size of all range keys has exceeded the size limit of 1024 bytes")
        return pk, sk

    def only(self, item: Item) -> Item:
        """The key attributes of an item."""
        return {name: item[name] for name in self.names}


def _require_content(part: KeyPart, value: Value) -> None:
    if not value[part.kind]:
        kind = "string" if part.kind == "S" else "binary"
        raise invalid(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty {kind} value. Key: {part.name}"
        )


@dataclass(frozen=True, slots=True)
class Throughput:
    read: int
    write: int


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index. `holding` numbers its entries; `include` are a projection's further attributes."""

    name: str
    holding: int
    schema: KeySchema
    is_global: bool
    projection: str
    include: tuple[str, ...] = ()
    active: bool = True
    throughput: Throughput | None = None

    def key_of(self, item: Item) -> Key | None:
        """Where a normalised item stands in this index, or None when it is not in it. Raises ValidationException for
        an index key of the wrong type, empty, or too long."""
        for part in self.schema.parts:
            value = item.get(part.name)
            if value is None:
                return None
            if part.kind not in value:
                raise invalid_parameter(
                    f"Type mismatch for Index Key {part.name} Expected: {part.kind} Actual: {next(iter(value))} "
                    f"IndexName: {self.name}"
                )
            if not value[part.kind]:
                kind = "string" if part.kind == "S" else "binary"
                raise invalid(
                    "One or more parameter values are not valid. A value specified for a secondary index key is not "
                    "supported. The AttributeValue for a key attribute cannot contain an empty "
                    f"{kind} value. IndexName: {self.name}, IndexKey: {part.name}"
                )
        pk, sk = self.schema.encode(item)
        if len(pk) > MAX_HASH_BYTES + 4 or len(sk) > MAX_RANGE_BYTES:
            what = "hashkey" if len(pk) > MAX_HASH_BYTES + 4 else "rangekey"
            limit = MAX_HASH_BYTES if what == "hashkey" else MAX_RANGE_BYTES
            raise invalid_parameter(
                f"Size of {what} has exceeded the maximum size limit of {limit} bytes IndexName: {self.name}"
            )
        return pk, sk

    def projects_all(self) -> bool:
        return self.projection == "ALL"

    def projected(self, table: "Table") -> Tree:
        """The attributes that an entry has, for a projection that is not ALL."""
        return tree((name,) for name in (*table.schema.names, *self.schema.names, *self.include))

    def view(self, table: "Table", item: Item) -> Item:
        """The item as this index holds it."""
        return item if self.projection == "ALL" else project(item, self.projected(table))

    def entry_size(self, table: "Table", item: Item, size: int) -> int:
        return size if self.projection == "ALL" else item_size(self.view(table, item))


@dataclass(frozen=True, slots=True)
class Table:
    """A table's definition. `id` is also the holding of its items; `created` in epoch seconds."""

    id: int
    uuid: str
    name: str
    arn: str
    created: float
    schema: KeySchema
    attributes: tuple[KeyPart, ...]
    indexes: tuple[Index, ...] = ()
    billing: str = "PROVISIONED"
    billing_changed: float | None = None
    throughput: Throughput = Throughput(0, 0)
    on_demand: Throughput | None = None
    table_class: str | None = None
    protected: bool = False
    ttl_attribute: str | None = None

    @property
    def holding(self) -> int:
        return self.id

    def index(self, name: str) -> Index:
        """Raises ValidationException for an index that does not exist."""
        for index in self.indexes:
            if index.name == name:
                return index
        raise invalid(f"The table does not have the specified index: {name}")

    def expiry(self, item: Item, now: float) -> float | None:
        """When the item's time to live ends (epoch seconds), or None when it does not."""
        if self.ttl_attribute is None:
            return None
        value = item.get(self.ttl_attribute)
        if value is None or "N" not in value:
            return None
        moment = float(value["N"])
        return moment if now - FIVE_YEARS_S <= moment < 1e12 else None
