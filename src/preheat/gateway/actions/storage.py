"""Rules of S3, SQS, DynamoDB, S3 Vectors and Bedrock."""

import re
from collections.abc import Iterable
from typing import Any

from preheat.gateway.actions.need import (
    Keys,
    Need,
    Rule,
    arn_of,
    both,
    each,
    given,
    on,
    when,
)
from preheat.services.contract import Context, Params
from preheat.services.dynamodb import repository as dynamodb
from preheat.services.s3 import repository as s3
from preheat.services.s3.domain import copy_source
from preheat.services.sqs.moves import source_of

# -- S3 ----------------------------------------------------------------------------------------------------------------


def _bucket(ctx: Context, params: Params) -> list[str]:
    return [f"arn:aws:s3:::{params['Bucket']}"]


def _object(ctx: Context, params: Params) -> list[str]:
    return [f"arn:aws:s3:::{params['Bucket']}/{params['Key']}"]


def _listed(params: Params) -> Keys:
    keys = {"s3:prefix": params.get("Prefix"), "s3:delimiter": params.get("Delimiter")}
    found = {name: [value] for name, value in keys.items() if value is not None}
    return {**found, "s3:max-keys": [str(params.get("MaxKeys", 1_000))]}


def _versioned(action: str) -> Rule:
    """`s3:GetObject`, or `s3:GetObjectVersion` for a request that names a version."""

    def rule(ctx: Context, params: Params) -> list[Need]:
        version = params.get("VersionId")
        keys = {} if version is None else {"s3:versionid": [version]}
        return [Need(action + ("Version" if version else ""), _object(ctx, params)[0], keys)]

    return rule


def _read_object(ctx: Context, params: Params) -> list[Need]:
    """Who may not list the bucket is not told that an object is missing: it needs s3:ListBucket too."""
    bucket = s3.bucket(ctx.db, params["Bucket"])
    missing = bucket is not None and s3.present(ctx.db, bucket.id, params["Key"]) is None
    listing = on("s3:ListBucket", _bucket)(ctx, params) if missing else []
    return _versioned("s3:GetObject")(ctx, params) + listing


def _copied(ctx: Context, params: Params) -> list[Need]:
    source = copy_source(params["CopySource"])
    action = "s3:GetObject" if source.version is None else "s3:GetObjectVersion"
    return [Need(action, f"arn:aws:s3:::{source.bucket}/{source.key}", {})]


def _deleted_objects(ctx: Context, params: Params) -> list[Need]:
    return [
        Need(
            "s3:DeleteObjectVersion" if entry.get("VersionId") else "s3:DeleteObject",
            f"arn:aws:s3:::{params['Bucket']}/{entry['Key']}",
            {},
        )
        for entry in params["Delete"]["Objects"]
    ]


def _s3_object_rules() -> dict[str, Rule]:
    write = on("s3:PutObject", _object)
    tagged = both(write, when("Tagging", on("s3:PutObjectTagging", _object)))
    return {
        **dict.fromkeys(("PutObject", "CreateMultipartUpload"), tagged),
        **dict.fromkeys(("UploadPart", "CompleteMultipartUpload"), write),
        **dict.fromkeys(("CopyObject", "UploadPartCopy"), both(_copied, tagged)),
        **each("s3", _object, "AbortMultipartUpload GetObjectAcl PutObjectTagging DeleteObjectTagging"),
        "ListParts": on("s3:ListMultipartUploadParts", _object),
        "GetObject": _read_object,
        "HeadObject": _read_object,
        "GetObjectAttributes": both(_read_object, on("s3:GetObjectAttributes", _object)),
        "GetObjectTagging": on("s3:GetObjectTagging", _object),
        "DeleteObject": _versioned("s3:DeleteObject"),
        "DeleteObjects": _deleted_objects,
    }


_BUCKET_ACTIONS = {
    "CreateBucket": "CreateBucket", "DeleteBucket": "DeleteBucket", "HeadBucket": "ListBucket",
    "GetBucketLocation": "GetBucketLocation", "GetBucketAcl": "GetBucketAcl", "PutBucketAcl": "PutBucketAcl",
    "GetBucketPolicy": "GetBucketPolicy", "PutBucketPolicy": "PutBucketPolicy",
    "DeleteBucketPolicy": "DeleteBucketPolicy", "GetBucketCors": "GetBucketCORS", "PutBucketCors": "PutBucketCORS",
    "DeleteBucketCors": "PutBucketCORS", "GetBucketTagging": "GetBucketTagging",
    "PutBucketTagging": "PutBucketTagging", "DeleteBucketTagging": "PutBucketTagging",
    "GetBucketEncryption": "GetEncryptionConfiguration", "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration", "GetBucketOwnershipControls": "GetBucketOwnershipControls",
    "PutBucketOwnershipControls": "PutBucketOwnershipControls",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock", "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "PutBucketNotificationConfiguration": "PutBucketNotification", "GetBucketVersioning": "GetBucketVersioning",
    "PutBucketVersioning": "PutBucketVersioning", "ListMultipartUploads": "ListBucketMultipartUploads",
}  # fmt: skip


def s3_rules() -> dict[str, Rule]:
    return {
        **{operation: on(f"s3:{action}", _bucket) for operation, action in _BUCKET_ACTIONS.items()},
        **dict.fromkeys(("ListObjects", "ListObjectsV2"), on("s3:ListBucket", _bucket, _listed)),
        "ListObjectVersions": on("s3:ListBucketVersions", _bucket, _listed),
        "ListBuckets": on("s3:ListAllMyBuckets", lambda ctx, params: ["arn:aws:s3:::*"]),
        **_s3_object_rules(),
    }


# -- SQS ---------------------------------------------------------------------------------------------------------------


def _queue(ctx: Context, params: Params) -> list[str]:
    account, _, name = params.get("QueueUrl", "").rstrip("/").rpartition("/")
    account = account.rpartition("/")[2]
    if not (account.isdigit() and len(account) == 12):
        account = ctx.scope.account
    return [f"arn:aws:sqs:{ctx.scope.region}:{account}:{name}"]


def _named_queue(ctx: Context, params: Params) -> list[str]:
    account = params.get("QueueOwnerAWSAccountId", ctx.scope.account)
    return [f"arn:aws:sqs:{ctx.scope.region}:{account}:{params['QueueName']}"]


def _moved_queue(ctx: Context, params: Params) -> list[str]:
    """The dead-letter queue of a move task's handle."""
    return [source_of(params["TaskHandle"])]


def sqs_rules() -> dict[str, Rule]:
    plain = (
        "AddPermission ChangeMessageVisibility DeleteMessage DeleteQueue GetQueueAttributes ListDeadLetterSourceQueues "
        "ListQueueTags PurgeQueue ReceiveMessage RemovePermission SendMessage SetQueueAttributes TagQueue UntagQueue"
    )
    moving = ("StartMessageMoveTask", "ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    batches = ("ChangeMessageVisibility", "DeleteMessage", "SendMessage")
    return {
        **each("sqs", _queue, plain),
        **{f"{name}Batch": on(f"sqs:{name}", _queue) for name in batches},
        "CreateQueue": both(
            on("sqs:CreateQueue", _named_queue), when("tags", on("sqs:TagQueue", _named_queue))
        ),
        "StartMessageMoveTask": both(
            *(on(f"sqs:{action}", given("SourceArn")) for action in moving),
            when("DestinationArn", on("sqs:SendMessage", given("DestinationArn"))),
        ),
        "CancelMessageMoveTask": on("sqs:CancelMessageMoveTask", _moved_queue),
        "ListMessageMoveTasks": on("sqs:ListMessageMoveTasks", given("SourceArn")),
        "GetQueueUrl": on("sqs:GetQueueUrl", _named_queue),
        "ListQueues": on("sqs:ListQueues", arn_of("sqs", "*")),
    }


# -- DynamoDB ----------------------------------------------------------------------------------------------------------


def _table_arn(ctx: Context, name: str) -> str:
    return ctx.scope.arn("dynamodb", f"table/{_plain_name(name)}")


def _plain_name(name: str) -> str:
    """A table's name, of a request that may give its ARN: as the service reads it."""
    return name.rpartition("/")[2] if name.startswith("arn:") else name


def _table(ctx: Context, params: Params) -> list[str]:
    return [_table_arn(ctx, params["TableName"])]


def _text_of(value: Any) -> list[str]:
    """A key attribute as a policy writes it; nothing for a value that is none."""
    if not isinstance(value, dict) or len(value) != 1:
        return []
    kind, plain = next(iter(value.items()))
    return [str(plain)] if kind in ("S", "N") else []


def _hash_name(ctx: Context, name: str, index: str | None = None) -> str | None:
    """The partition key's name of a table or of one of its indexes."""
    table = dynamodb.load_table(ctx.db, ctx.scope, _plain_name(name))
    if table is None:
        return None
    if index is None:
        return table.schema.hash.name
    found = next((one for one in table.indexes if one.name == index), None)
    return None if found is None else found.schema.hash.name


def _leading(hash_name: str | None, items: Iterable[Params]) -> Keys:
    values = [text for item in items for text in _text_of(item.get(hash_name))] if hash_name else []
    return {"dynamodb:leadingkeys": values} if values else {}


_EQUALITY = re.compile(r"([#\w]+)\s*=\s*(:\w+)")


def _queried(ctx: Context, params: Params) -> Keys:
    """The partition key's value in a Query's key condition."""
    name = _hash_name(ctx, params["TableName"], params.get("IndexName"))
    names, values = params.get("ExpressionAttributeNames") or {}, params.get("ExpressionAttributeValues") or {}
    for left, right in _EQUALITY.findall(params.get("KeyConditionExpression") or ""):
        if name is not None and names.get(left, left) == name:
            return _leading(name, [{name: values.get(right)}])
    given = (params.get("KeyConditions") or {}).get(name) or {}
    return _leading(name, [{name: one} for one in given.get("AttributeValueList") or ()])


def _item(operation: str, member: str) -> Rule:
    def rule(ctx: Context, params: Params) -> list[Need]:
        keys = _leading(_hash_name(ctx, params["TableName"]), [params.get(member) or {}])
        return [Need(f"dynamodb:{operation}", _table(ctx, params)[0], keys)]

    return rule


def _read(operation: str) -> Rule:
    """Query and Scan, on a table or an index of it."""

    def rule(ctx: Context, params: Params) -> list[Need]:
        arn, index = _table(ctx, params)[0], params.get("IndexName")
        keys = _queried(ctx, params) if operation == "Query" else {}
        return [Need(f"dynamodb:{operation}", f"{arn}/index/{index}" if index else arn, keys)]

    return rule


def _batch(operation: str) -> Rule:
    def items(wanted: Any) -> Iterable[Params]:
        if isinstance(wanted, dict):
            return wanted.get("Keys") or ()
        return [
            (entry.get("PutRequest") or {}).get("Item") or (entry.get("DeleteRequest") or {}).get("Key") or {}
            for entry in wanted
        ]

    def rule(ctx: Context, params: Params) -> list[Need]:
        return [
            Need(f"dynamodb:{operation}", _table_arn(ctx, name), _leading(_hash_name(ctx, name), items(wanted)))
            for name, wanted in params["RequestItems"].items()
        ]

    return rule


_TRANSACTED = {
    "Get": ("GetItem", "Key"), "Put": ("PutItem", "Item"), "Update": ("UpdateItem", "Key"),
    "Delete": ("DeleteItem", "Key"), "ConditionCheck": ("ConditionCheckItem", "Key"),
}  # fmt: skip


def _transaction(ctx: Context, params: Params) -> list[Need]:
    return [
        need
        for entry in params["TransactItems"]
        for kind, part in entry.items()
        for need in _item(*_TRANSACTED[kind])(ctx, part)
    ]


def dynamodb_rules() -> dict[str, Rule]:
    tables = "DeleteTable DescribeTable DescribeTimeToLive UpdateTable UpdateTimeToLive"
    return {
        **each("dynamodb", _table, tables),
        **each("dynamodb", given("ResourceArn"), "ListTagsOfResource TagResource UntagResource"),
        **{name: _item(name, "Key") for name in ("GetItem", "UpdateItem", "DeleteItem")},
        **{name: _batch(name) for name in ("BatchGetItem", "BatchWriteItem")},
        **{name: _read(name) for name in ("Query", "Scan")},
        "PutItem": _item("PutItem", "Item"),
        "TransactGetItems": _transaction,
        "TransactWriteItems": _transaction,
        "CreateTable": both(
            on("dynamodb:CreateTable", _table), when("Tags", on("dynamodb:TagResource", _table))
        ),
        "ListTables": on("dynamodb:ListTables", arn_of("dynamodb", "table/*")),
    }


# -- S3 Vectors, Bedrock -----------------------------------------------------------------------------------------------


def _vector_bucket(ctx: Context, params: Params) -> list[str]:
    arn = params.get("vectorBucketArn")
    return [arn or ctx.scope.arn("s3vectors", f"bucket/{params.get('vectorBucketName', '')}")]


def _vector_index(ctx: Context, params: Params) -> list[str]:
    arn = params.get("indexArn")
    return [arn or f"{_vector_bucket(ctx, params)[0]}/index/{params.get('indexName', '')}"]


def _vector_read(operation: str, *members: str) -> Rule:
    """What answers with data or metadata, or filters by it, needs s3vectors:GetVectors too."""
    more = on("s3vectors:GetVectors", _vector_index)

    def rule(ctx: Context, params: Params) -> list[Need]:
        wants = any(params.get(member) for member in members)
        return on(f"s3vectors:{operation}", _vector_index)(ctx, params) + (more(ctx, params) if wants else [])

    return rule


def s3vectors_rules() -> dict[str, Rule]:
    buckets = (
        "DeleteVectorBucket GetVectorBucket GetVectorBucketPolicy PutVectorBucketPolicy "
        "DeleteVectorBucketPolicy PutVectorBucketDefaultIndexMode ListIndexes"
    )
    indexes = "DeleteIndex GetIndex PutVectors GetVectors DeleteVectors UpdateIndexMode"
    return {
        **each("s3vectors", _vector_bucket, buckets),
        **each("s3vectors", _vector_index, f"{indexes} UpdateMetadataConfiguration"),
        **each("s3vectors", given("resourceArn"), "ListTagsForResource TagResource UntagResource"),
        "CreateVectorBucket": both(
            on("s3vectors:CreateVectorBucket", _vector_bucket),
            when("tags", on("s3vectors:TagResource", _vector_bucket)),
        ),
        "CreateIndex": both(
            on("s3vectors:CreateIndex", _vector_index), when("tags", on("s3vectors:TagResource", _vector_index))
        ),
        "ListVectorBuckets": on("s3vectors:ListVectorBuckets", arn_of("s3vectors", "*")),
        "ListVectors": _vector_read("ListVectors", "returnData", "returnMetadata"),
        "QueryVectors": _vector_read("QueryVectors", "returnMetadata", "filter", "queryTexts"),
    }


def _model(ctx: Context, params: Params) -> list[str]:
    name = params["modelId"]
    if name.startswith("arn:"):
        return [name]
    if re.match(r"(us|eu|apac|us-gov|global)\.", name):
        return [ctx.scope.arn("bedrock", f"inference-profile/{name}")]
    return [f"arn:aws:bedrock:{ctx.scope.region}::foundation-model/{name}"]


def bedrock_rules() -> dict[str, Rule]:
    stream = on("bedrock:InvokeModelWithResponseStream", _model)
    whole = on("bedrock:InvokeModel", _model)
    return {
        "InvokeModel": whole,
        "Converse": whole,
        "InvokeModelWithResponseStream": stream,
        "ConverseStream": stream,
        "CountTokens": on("bedrock:CountTokens", _model),
    }
