"""Operations on tables: create, describe, change, delete; time to live; tags."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context
from preheat.services.dynamodb import definitions, repository
from preheat.services.dynamodb.catalog import Catalog, table_name
from preheat.services.dynamodb.domain import Index, KeyPart, KeySchema, Table, Throughput
from preheat.services.dynamodb.items import require
from preheat.services.dynamodb.values import invalid, invalid_parameter

Params = dict[str, Any]
MAX_TAGS = 50
MAX_LISTED = 100


class Tables:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    # -- life -----------------------------------------------------------------------------------------------------

    def create_table(self, ctx: Context, params: Params) -> Params:
        definitions.refuse_unsupported(params)
        name = definitions.check_name(table_name(params))
        kinds = definitions.attribute_kinds(params.get("AttributeDefinitions", []))
        schema = definitions.key_schema(params.get("KeySchema", []), kinds)
        mode = params.get("BillingMode", "PROVISIONED")
        given = definitions.throughput(params.get("ProvisionedThroughput"))
        definitions.billing(mode, given)
        indexes = definitions.indexes(params, kinds, schema, mode)
        definitions.require_used(kinds, [schema, *(index.schema for index in indexes)])
        tags = _checked_tags(params.get("Tags", []))
        if self.catalog.find(ctx, name) is not None:
            raise AwsError("ResourceInUseException", f"Table already exists: {name}")
        table = Table(
            id=repository.new_holding(ctx.db),
            uuid=ctx.entropy.uuid(),
            name=name,
            arn=ctx.scope.arn("dynamodb", f"table/{name}"),
            created=ctx.now,
            schema=schema,
            attributes=tuple(KeyPart(*pair) for pair in kinds.items()),
            indexes=tuple(replace(index, holding=repository.new_holding(ctx.db)) for index in indexes),
            billing=mode,
            billing_changed=ctx.now if mode == "PAY_PER_REQUEST" else None,
            throughput=given or Throughput(0, 0),
            on_demand=definitions.on_demand(params.get("OnDemandThroughput"), mode),
            table_class=params.get("TableClass"),
            protected=params.get("DeletionProtectionEnabled", False),
        )
        repository.add_table(ctx.db, ctx.scope, table)
        for key, value in tags.items():
            ctx.db.run("INSERT INTO dynamodb_tags VALUES (?, ?, ?)", table.id, key, value)
        self.catalog.changed(ctx, ctx.scope, name)
        return {"TableDescription": describe(ctx, table)}

    def describe_table(self, ctx: Context, params: Params) -> Params:
        return {"Table": describe(ctx, self.catalog.describe(ctx, params))}

    def list_tables(self, ctx: Context, params: Params) -> Params:
        limit = params.get("Limit", MAX_LISTED)
        if not 1 <= limit <= MAX_LISTED:
            bound = "greater than or equal to 1" if limit < 1 else f"less than or equal to {MAX_LISTED}"
            raise invalid(
                f"1 validation error detected: Value '{limit}' at 'limit' failed to satisfy constraint: "
                f"Member must have value {bound}"
            )
        names = repository.list_names(ctx.db, ctx.scope, params.get("ExclusiveStartTableName", ""), limit + 1)
        out: Params = {"TableNames": names[:limit]}
        if len(names) > limit:
            out["LastEvaluatedTableName"] = names[limit - 1]
        return out

    def delete_table(self, ctx: Context, params: Params) -> Params:
        table = self.catalog.describe(ctx, params)
        if table.protected:
            raise invalid(
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
            )
        description = describe(ctx, table)
        repository.delete_table(ctx.db, table)
        self.catalog.changed(ctx, ctx.scope, table.name)
        for member in ("AttributeDefinitions", "KeySchema", "CreationDateTime"):
            del description[member]
        return {"TableDescription": {**description, "TableStatus": "DELETING"}}

    def update_table(self, ctx: Context, params: Params) -> Params:
        definitions.refuse_unsupported(params)
        table = self.catalog.describe(ctx, params)
        changes = {
            "BillingMode",
            "ProvisionedThroughput",
            "GlobalSecondaryIndexUpdates",
            "DeletionProtectionEnabled",
            "TableClass",
            "OnDemandThroughput",
        }
        if not changes & params.keys():
            raise invalid(
                "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, GlobalSecondaryIndexUpdates "
                "or SSESpecification or ReplicaUpdates is required"
            )
        table = self._rebilled(ctx, table, params)
        table = replace(
            table,
            protected=params.get("DeletionProtectionEnabled", table.protected),
            table_class=params.get("TableClass", table.table_class),
        )
        for update in params.get("GlobalSecondaryIndexUpdates", []):
            table = self._index_changed(ctx, table, update, params)
        repository.save_table(ctx.db, table)
        self.catalog.changed(ctx, ctx.scope, table.name)
        return {"TableDescription": describe(ctx, table)}

    def _rebilled(self, ctx: Context, table: Table, params: Params) -> Table:
        mode = params.get("BillingMode", table.billing)
        maximum = definitions.on_demand(params.get("OnDemandThroughput"), mode)
        given = definitions.throughput(params.get("ProvisionedThroughput"))
        if mode == table.billing == "PROVISIONED":
            if given == table.throughput:
                raise invalid(
                    "The provisioned throughput for the table will not change. The requested value equals the current "
                    f"value. Current ReadCapacityUnits provisioned for the table: {given.read}. Requested "
                    f"ReadCapacityUnits: {given.read}. Current WriteCapacityUnits provisioned for the table: "
                    f"{given.write}. Requested WriteCapacityUnits: {given.write}. Refer to the Amazon DynamoDB "
                    "Developer Guide for current limits and how to request higher limits."
                )
            return table if given is None else replace(table, throughput=given)
        definitions.billing(mode, given)
        if "OnDemandThroughput" not in params:
            maximum = table.on_demand
        if mode == table.billing:
            return replace(table, on_demand=maximum)
        on_demand = mode == "PAY_PER_REQUEST"
        default = None if on_demand else given
        return replace(
            table,
            billing=mode,
            billing_changed=ctx.now if on_demand else table.billing_changed,
            throughput=given or Throughput(0, 0),
            on_demand=maximum if on_demand else None,
            indexes=tuple(
                replace(index, throughput=default) if index.is_global else index for index in table.indexes
            ),
        )

    # -- indexes --------------------------------------------------------------------------------------------------

    def _index_changed(self, ctx: Context, table: Table, update: Params, params: Params) -> Table:
        if len(update) != 1:
            raise invalid_parameter("A GlobalSecondaryIndexUpdate must contain exactly one of Create, Update, Delete")
        ((action, entry),) = update.items()
        name = entry["IndexName"]
        known = {index.name: index for index in table.indexes}
        if action == "Create":
            return self._index_created(ctx, table, entry, params)
        if name not in known or not known[name].is_global:
            raise AwsError("ResourceNotFoundException", "Requested resource not found")
        found = known[name]
        if action == "Delete":
            repository.drop_index(ctx.db, table, found)
            left = tuple(index for index in table.indexes if index.name != name)
            used = {part for schema in (table.schema, *(index.schema for index in left)) for part in schema.parts}
            kept = tuple(part for part in table.attributes if part in used)
            return replace(table, indexes=left, attributes=kept)
        if entry.get("WarmThroughput"):
            raise invalid_parameter("Preheat does not support WarmThroughput")
        if table.billing == "PROVISIONED":
            definitions.on_demand(entry.get("OnDemandThroughput"), table.billing)
            changed = replace(found, throughput=definitions.throughput(entry.get("ProvisionedThroughput")))
        else:
            changed = replace(found, throughput=definitions.on_demand(entry.get("OnDemandThroughput")))
        if changed.throughput is None and table.billing == "PROVISIONED":
            raise invalid_parameter(f"ProvisionedThroughput must be specified for index: {name}")
        return replace(table, indexes=tuple(changed if index.name == name else index for index in table.indexes))

    def _index_created(self, ctx: Context, table: Table, entry: Params, params: Params) -> Table:
        if any(index.name == entry["IndexName"] for index in table.indexes):
            raise invalid("Attempting to create an index which already exists")
        if any(not index.active for index in table.indexes):
            raise AwsError(
                "LimitExceededException",
                "Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously per table",
            )
        if sum(index.is_global for index in table.indexes) >= definitions.MAX_GLOBAL_INDEXES:
            raise AwsError("LimitExceededException", "GlobalSecondaryIndexes per table limit exceeded: 20")
        kinds = {part.name: part.kind for part in table.attributes}
        for name, kind in definitions.attribute_kinds(params.get("AttributeDefinitions", [])).items():
            if kinds.setdefault(name, kind) != kind:
                raise invalid_parameter(
                    f"Cannot redefine the type of an attribute that is already a key: {name}"
                )
        index = definitions.index(entry, kinds, table.schema, table.billing, True)
        index = replace(index, holding=repository.new_holding(ctx.db), active=False)
        indexes = (*table.indexes, index)
        used = {name for schema in (table.schema, *(entry.schema for entry in indexes)) for name in schema.names}
        repository.add_job(ctx.db, "index", table.id, index.holding)
        attributes = tuple(KeyPart(name, kind) for name, kind in kinds.items() if name in used)
        return replace(table, indexes=indexes, attributes=attributes)

    # -- time to live ---------------------------------------------------------------------------------------------

    def update_time_to_live(self, ctx: Context, params: Params) -> Params:
        table = self.catalog.describe(ctx, params)
        given = require(params, "TimeToLiveSpecification")
        name, enabled = given["AttributeName"], given["Enabled"]
        if not name:
            raise invalid("1 validation error detected: Value '' at 'timeToLiveSpecification.attributeName' failed to "
                          "satisfy constraint: Member must have length greater than or equal to 1")
        if enabled and table.ttl_attribute == name:
            raise invalid("TimeToLive is already enabled")
        if table.ttl_attribute is None and not enabled:
            raise invalid("TimeToLive is already disabled")
        if table.ttl_attribute not in (None, name):
            raise invalid(
                f"TimeToLive is active on a different AttributeName: current AttributeName is {table.ttl_attribute}"
            )
        table = replace(table, ttl_attribute=name if enabled else None)
        repository.save_table(ctx.db, table)
        repository.add_job(ctx.db, "expiry", table.id, table.holding)
        self.catalog.changed(ctx, ctx.scope, table.name)
        return {"TimeToLiveSpecification": {"Enabled": enabled, "AttributeName": name}}

    def describe_time_to_live(self, ctx: Context, params: Params) -> Params:
        table = self.catalog.describe(ctx, params)
        out = {"TimeToLiveStatus": "DISABLED" if table.ttl_attribute is None else "ENABLED"}
        if table.ttl_attribute is not None:
            out["AttributeName"] = table.ttl_attribute
        return {"TimeToLiveDescription": out}

    # -- tags -----------------------------------------------------------------------------------------------------

    def _tagged(self, ctx: Context, params: Params) -> Table:
        arn = require(params, "ResourceArn")
        try:
            parsed = Arn.parse(arn)
        except ValueError:
            raise invalid(f"Invalid ResourceArn: {arn}") from None
        kind, _, name = parsed.resource.partition("/")
        table = self.catalog.find(ctx, name)
        if parsed.service != "dynamodb" or kind != "table" or parsed.scope != ctx.scope or table is None:
            raise AwsError("ResourceNotFoundException", f"Requested resource not found: ResourceArn: {arn} not found")
        return table

    def tag_resource(self, ctx: Context, params: Params) -> Params:
        table = self._tagged(ctx, params)
        for key, value in _checked_tags(require(params, "Tags")).items():
            ctx.db.run("INSERT OR REPLACE INTO dynamodb_tags VALUES (?, ?, ?)", table.id, key, value)
        if ctx.db.value("SELECT COUNT(*) FROM dynamodb_tags WHERE table_id = ?", table.id) > MAX_TAGS:
            raise invalid("The number of tags exceeds the limit of 50 tags per resource")
        return {}

    def untag_resource(self, ctx: Context, params: Params) -> Params:
        table = self._tagged(ctx, params)
        for key in require(params, "TagKeys"):
            ctx.db.run("DELETE FROM dynamodb_tags WHERE table_id = ? AND key = ?", table.id, key)
        return {}

    def list_tags_of_resource(self, ctx: Context, params: Params) -> Params:
        """All tags at once: a table has 50 at most."""
        table = self._tagged(ctx, params)
        if params.get("NextToken"):
            raise invalid("Invalid NextToken: tags are answered in one page")
        rows = ctx.db.all("SELECT key, value FROM dynamodb_tags WHERE table_id = ? ORDER BY key", table.id)
        return {"Tags": [{"Key": row[0], "Value": row[1]} for row in rows]}


def _checked_tags(tags: list[Params]) -> dict[str, str]:
    out = {}
    for tag in tags:
        key, value = tag["Key"], tag["Value"]
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise invalid_parameter(f"A tag has a key of 1 to 128 characters and a value of at most 256: {key}")
        if key.lower().startswith("aws:"):
            raise invalid_parameter(f"Tag keys starting with aws: are reserved: {key}")
        out[key] = value
    if len(out) > MAX_TAGS:
        raise invalid("The number of tags exceeds the limit of 50 tags per resource")
    return out


# -- descriptions -----------------------------------------------------------------------------------------------------


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _schema(schema: KeySchema) -> list[Params]:
    return [
        {"AttributeName": part.name, "KeyType": kind}
        for part, kind in zip(schema.parts, ("HASH", "RANGE"), strict=False)
    ]


def _maximum(throughput: Throughput) -> Params:
    return {
        "MaxReadRequestUnits": throughput.read or -1,
        "MaxWriteRequestUnits": throughput.write or -1,
    }


def _describe_index(ctx: Context, table: Table, index: Index) -> Params:
    items, size = repository.counts(ctx.db, index.holding)
    projection: Params = {"ProjectionType": index.projection}
    if index.include:
        projection["NonKeyAttributes"] = list(index.include)
    out: Params = {
        "IndexName": index.name,
        "KeySchema": _schema(index.schema),
        "Projection": projection,
        "IndexSizeBytes": size,
        "ItemCount": items,
        "IndexArn": f"{table.arn}/index/{index.name}",
    }
    if not index.is_global:
        return out
    out["IndexStatus"] = "ACTIVE" if index.active else "CREATING"
    if not index.active:
        out["Backfilling"] = True
    limit = index.throughput or Throughput(0, 0)
    provisioned = limit if table.billing == "PROVISIONED" else Throughput(0, 0)
    out["ProvisionedThroughput"] = _provisioned(provisioned)
    if table.billing == "PAY_PER_REQUEST" and index.throughput is not None:
        out["OnDemandThroughput"] = _maximum(limit)
    return out


def _provisioned(throughput: Throughput) -> Params:
    return {
        "NumberOfDecreasesToday": 0,
        "ReadCapacityUnits": throughput.read,
        "WriteCapacityUnits": throughput.write,
    }


def describe(ctx: Context, table: Table) -> Params:
    """A TableDescription with live counts."""
    items, size = repository.counts(ctx.db, table.holding)
    out: Params = {
        "AttributeDefinitions": [
            {"AttributeName": part.name, "AttributeType": part.kind} for part in table.attributes
        ],
        "TableName": table.name,
        "KeySchema": _schema(table.schema),
        "TableStatus": "ACTIVE",
        "CreationDateTime": _moment(table.created),
        "ProvisionedThroughput": _provisioned(table.throughput),
        "TableSizeBytes": size,
        "ItemCount": items,
        "TableArn": table.arn,
        "TableId": table.uuid,
        "DeletionProtectionEnabled": table.protected,
    }
    if table.billing_changed is not None:
        out["BillingModeSummary"] = {
            "BillingMode": table.billing,
            "LastUpdateToPayPerRequestDateTime": _moment(table.billing_changed),
        }
    if table.on_demand is not None:
        out["OnDemandThroughput"] = _maximum(table.on_demand)
    if table.table_class is not None:
        out["TableClassSummary"] = {"TableClass": table.table_class}
    for member, is_global in (("LocalSecondaryIndexes", False), ("GlobalSecondaryIndexes", True)):
        described = [_describe_index(ctx, table, index) for index in table.indexes if index.is_global == is_global]
        if described:
            out[member] = described
    return out
