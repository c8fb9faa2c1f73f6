"""A table's definition from a request: every rule of CreateTable and UpdateTable that needs no database."""

import re
from typing import Any

from preheat.services.dynamodb.domain import Index, KeyPart, KeySchema, Throughput
from preheat.services.dynamodb.values import invalid, invalid_parameter

Params = dict[str, Any]
MAX_GLOBAL_INDEXES = 20
MAX_LOCAL_INDEXES = 5
MAX_PROJECTED = 100
_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}\Z")
BILLING_MODES = ("PROVISIONED", "PAY_PER_REQUEST")
TABLE_CLASSES = ("STANDARD", "STANDARD_INFREQUENT_ACCESS")


def check_name(name: str, what: str = "TableName") -> str:
    """Raises ValidationException for a name that a table or index cannot have."""
    if not 3 <= len(name) <= 255:
        raise invalid(f"{what} must be at least 3 characters long and at most 255 characters long")
    if not _NAME.match(name):
        member = what[0].lower() + what[1:]
        raise invalid(
            f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        )
    return name


def attribute_kinds(definitions: list[Params]) -> dict[str, str]:
    """AttributeDefinitions as {name: "S" | "N" | "B"}."""
    kinds: dict[str, str] = {}
    for entry in definitions:
        name, kind = entry["AttributeName"], entry["AttributeType"]
        if kind not in ("S", "N", "B"):
            raise invalid(
                f"1 validation error detected: Value '{kind}' at 'attributeDefinitions.1.member.attributeType' failed "
                "to satisfy constraint: Member must satisfy enum value set: [B, N, S]"
            )
        if name in kinds:
            raise invalid_parameter(f"Duplicate AttributeName in AttributeDefinitions: {name}")
        kinds[name] = kind
    return kinds


def key_schema(elements: list[Params], kinds: dict[str, str], index: str | None = None) -> KeySchema:
    """A table's or an index's key."""
    if not elements:
        raise invalid(
            "No defined Key Schema.  A Key Schema containing at least a Hash Key must be defined for all tables"
        )
    if len(elements) > 2:
        if index is None:
            raise invalid(
                "1 validation error detected: Value at 'keySchema' failed to satisfy constraint: "
                "Member must have length less than or equal to 2"
            )
        raise invalid_parameter(
            f"Preheat does not support index keys of more than one partition and one sort attribute. Index: {index}"
        )
    if elements[0]["KeyType"] != "HASH":
        raise invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
    if len(elements) == 2 and elements[1]["KeyType"] != "RANGE":
        raise invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
    names = [element["AttributeName"] for element in elements]
    if len(set(names)) != len(names):
        raise invalid("Both the Hash Key and the Range Key element in the KeySchema have the same name")
    missing = [name for name in names if name not in kinds]
    if missing:
        what = "Some index key attributes are not defined in AttributeDefinitions"
        shown = f"Keys: [{', '.join(missing)}], AttributeDefinitions: [{', '.join(kinds)}]"
        raise invalid_parameter(f"{what}. {shown}")
    parts = [KeyPart(name, kinds[name]) for name in names]
    return KeySchema(*parts)


def throughput(given: Params | None) -> Throughput | None:
    """ProvisionedThroughput, or None when absent."""
    if given is None:
        return None
    out = Throughput(given["ReadCapacityUnits"], given["WriteCapacityUnits"])
    for member, units in (("readCapacityUnits", out.read), ("writeCapacityUnits", out.write)):
        if units < 1:
            raise invalid(
                f"1 validation error detected: Value '{units}' at 'provisionedThroughput.{member}' failed to satisfy "
                "constraint: Member must have value greater than or equal to 1"
            )
    return out


def on_demand(given: Params | None, mode: str = "PAY_PER_REQUEST") -> Throughput | None:
    """OnDemandThroughput; -1 and absent members mean no maximum, held as 0."""
    if given is None:
        return None
    if mode != "PAY_PER_REQUEST":
        raise invalid_parameter("OnDemandThroughput cannot be specified when BillingMode is PROVISIONED")
    out = Throughput(
        max(0, given.get("MaxReadRequestUnits", -1)), max(0, given.get("MaxWriteRequestUnits", -1))
    )
    return out if out.read or out.write else None


def billing(mode: str, given: Throughput | None) -> None:
    """Raises ValidationException when a billing mode and a throughput do not go together."""
    if mode not in BILLING_MODES:
        raise invalid(
            f"1 validation error detected: Value '{mode}' at 'billingMode' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(BILLING_MODES)}]"
        )
    if mode == "PROVISIONED" and given is None:
        raise invalid_parameter(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED"
        )
    if mode == "PAY_PER_REQUEST" and given is not None:
        raise invalid_parameter(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
        )


def index(entry: Params, kinds: dict[str, str], table_schema: KeySchema, mode: str, is_global: bool) -> Index:
    """A secondary index's definition; its holding is given later."""
    if entry.get("WarmThroughput"):
        raise invalid_parameter("Preheat does not support WarmThroughput")
    name = check_name(entry["IndexName"], "IndexName")
    schema = key_schema(entry.get("KeySchema", []), kinds, name)
    if not is_global:
        if schema.range is None:
            raise invalid_parameter(f"Index KeySchema does not have a range key for index: {name}")
        if schema.hash != table_schema.hash:
            raise invalid_parameter(
                "Index KeySchema does not have the same leading hash key as table KeySchema for index: "
                f"{name}. index hash key: {schema.hash.name}, table hash key: {table_schema.hash.name}"
            )
    projection = entry.get("Projection", {})
    kind = projection.get("ProjectionType")
    include = tuple(projection.get("NonKeyAttributes", ()))
    if kind not in ("ALL", "KEYS_ONLY", "INCLUDE"):
        raise invalid_parameter(f"Unknown ProjectionType: {kind or 'null'}")
    if kind == "INCLUDE" and not include:
        raise invalid_parameter("ProjectionType is INCLUDE, but NonKeyAttributes is not specified")
    if kind != "INCLUDE" and include:
        raise invalid_parameter(f"ProjectionType is {kind}, but NonKeyAttributes is specified")
    given = throughput(entry.get("ProvisionedThroughput"))
    if is_global:
        if mode == "PROVISIONED" and given is None:
            raise invalid_parameter(f"ProvisionedThroughput must be specified for index: {name}")
        if mode == "PAY_PER_REQUEST" and given is not None:
            raise invalid_parameter(
                f"ProvisionedThroughput should not be specified for index: {name} when BillingMode is PAY_PER_REQUEST"
            )
        maximum = on_demand(entry.get("OnDemandThroughput"), mode)
        given = maximum if mode == "PAY_PER_REQUEST" else given
    return Index(name, 0, schema, is_global, kind, include, True, given)


def indexes(params: Params, kinds: dict[str, str], schema: KeySchema, mode: str) -> list[Index]:
    """All secondary indexes of a CreateTable request."""
    local = params.get("LocalSecondaryIndexes", [])
    over_all = params.get("GlobalSecondaryIndexes", [])
    if local and schema.range is None:
        raise invalid_parameter(
            "Table KeySchema does not have a range key, which is required when specifying a LocalSecondaryIndex"
        )
    if len(local) > MAX_LOCAL_INDEXES:
        raise invalid_parameter("Number of LocalSecondaryIndexes exceeds per-table limit of 5")
    if len(over_all) > MAX_GLOBAL_INDEXES:
        raise invalid_parameter("Number of GlobalSecondaryIndexes exceeds per-table limit of 20")
    out = [index(entry, kinds, schema, mode, False) for entry in local]
    out += [index(entry, kinds, schema, mode, True) for entry in over_all]
    names = [entry.name for entry in out]
    for name in names:
        if names.count(name) > 1:
            raise invalid_parameter(f"Duplicate index name: {name}")
    if sum(len(entry.include) for entry in out) > MAX_PROJECTED:
        raise invalid_parameter("Number of NonKeyAttributes in all indexes exceeds the limit of 100")
    return out


def require_used(kinds: dict[str, str], schemas: list[KeySchema]) -> None:
    """Raises ValidationException for an attribute that is defined and not a key."""
    used = dict.fromkeys(name for schema in schemas for name in schema.names)
    if set(used) == set(kinds):
        return
    if len(schemas) == 1:
        raise invalid_parameter(
            "Number of attributes in KeySchema does not exactly match number of attributes defined in "
            "AttributeDefinitions"
        )
    raise invalid_parameter(
        "Some AttributeDefinitions are not used. "
        f"AttributeDefinitions: [{', '.join(kinds)}], keys used: [{', '.join(used)}]"
    )


def refuse_unsupported(params: Params) -> None:
    """Raises ValidationException for what would not act here: streams, customer keys, replicas, vector indexes."""
    if params.get("StreamSpecification", {}).get("StreamEnabled"):
        raise invalid_parameter("Preheat does not support table streams yet: StreamSpecification must not be enabled")
    if params.get("SSESpecification", {}).get("Enabled"):
        raise invalid_parameter("Preheat does not support SSESpecification: items are not encrypted with KMS keys")
    members = (
        "WarmThroughput",
        "ResourcePolicy",
        "GlobalTableSourceArn",
        "GlobalTableSettingsReplicationMode",
        "VectorIndexes",
        "ReplicaUpdates",
        "MultiRegionConsistency",
        "GlobalTableWitnessUpdates",
        "DisassociationProtectionEnabled",
        "VectorIndexUpdates",
    )
    for member in members:
        if params.get(member):
            raise invalid_parameter(f"Preheat does not support {member}")
    table_class = params.get("TableClass")
    if table_class is not None and table_class not in TABLE_CLASSES:
        raise invalid(
            f"1 validation error detected: Value '{table_class}' at 'tableClass' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(TABLE_CLASSES)}]"
        )
