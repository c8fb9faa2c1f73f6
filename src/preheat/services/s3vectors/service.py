"""Amazon S3 Vectors at the door: buckets, indexes, policies, tags. Vectors and queries: `vectors.py`."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from preheat.services.contract import Context, Operation, Outcome, Params, Platform
from preheat.services.s3vectors import domain, repository
from preheat.services.s3vectors.copies import FOLDER, Copies
from preheat.services.s3vectors.desk import GARBAGE, Desk
from preheat.services.s3vectors.lookup import bucket_of, index_of, page_start, page_token
from preheat.services.s3vectors.vectors import VectorOperations

LIST_LIMIT = 500
POLICY_CHARACTERS = 20 * 1024


def create_vector_bucket(ctx: Context, params: Params) -> Outcome:
    name = params.get("vectorBucketName")
    domain.check_name(name, "/vectorBucketName", "vector bucket")
    sse, key = domain.check_encryption(params.get("encryptionConfiguration"))
    tags = params.get("tags") or {}
    domain.check_tags(tags)
    if repository.count_buckets(ctx.db, ctx.scope) >= domain.BUCKETS_PER_REGION:
        raise domain.over_quota(f"You can have at most {domain.BUCKETS_PER_REGION} vector buckets in a Region")
    if not repository.add_bucket(ctx.db, ctx.scope, name, ctx.now, sse or "AES256", key, "ENHANCED"):
        raise domain.conflict("A vector bucket with the specified name already exists")
    arn = repository.bucket_arn(ctx.scope, name)
    repository.put_tags(ctx.db, arn, tags)
    return {"vectorBucketArn": arn}


def get_vector_bucket(ctx: Context, params: Params) -> Outcome:
    bucket = bucket_of(ctx, params)
    described = {
        "vectorBucketName": bucket.name,
        "vectorBucketArn": bucket.arn,
        "creationTime": _time(bucket.created_at),
        "encryptionConfiguration": _encryption(bucket.sse_type, bucket.kms_key_arn),
        "defaultIndexMode": bucket.default_mode,
    }
    return {"vectorBucket": described}


def list_vector_buckets(ctx: Context, params: Params) -> Outcome:
    limit, prefix, after = _listing(params, f"buckets:{params.get('prefix', '')}")
    found = repository.buckets(ctx.db, ctx.scope, prefix, after, limit + 1)
    output: Params = {
        "vectorBuckets": [
            {"vectorBucketName": one.name, "vectorBucketArn": one.arn, "creationTime": _time(one.created_at)}
            for one in found[:limit]
        ]
    }
    if len(found) > limit:
        output["nextToken"] = page_token(f"buckets:{prefix}", found[limit - 1].name)
    return output


def delete_vector_bucket(ctx: Context, params: Params) -> Outcome:
    bucket = bucket_of(ctx, params)
    if repository.count_indexes(ctx.db, bucket.id):
        raise domain.conflict("The specified vector bucket is not empty")
    repository.remove_bucket(ctx.db, bucket.id)
    repository.remove_tags(ctx.db, bucket.arn)
    return {}


def put_vector_bucket_policy(ctx: Context, params: Params) -> Outcome:
    bucket = bucket_of(ctx, params)
    domain.check_length(params.get("policy"), "/policy", 1, POLICY_CHARACTERS)
    try:
        document = json.loads(params["policy"])
    except ValueError:
        document = None
    statements = document.get("Statement") if isinstance(document, dict) else None
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements or not all(map(_is_statement, statements)):
        text = "The policy is not a valid JSON policy document"
        raise domain.invalid(text, ("/policy", text))
    repository.set_policy(ctx.db, bucket.id, params["policy"])
    return {}


def get_vector_bucket_policy(ctx: Context, params: Params) -> Outcome:
    bucket = bucket_of(ctx, params)
    if bucket.policy is None:
        raise domain.not_found("vector bucket policy")
    return {"policy": bucket.policy}


def delete_vector_bucket_policy(ctx: Context, params: Params) -> Outcome:
    repository.set_policy(ctx.db, bucket_of(ctx, params).id, None)
    return {}


def put_vector_bucket_default_index_mode(ctx: Context, params: Params) -> Outcome:
    mode = params.get("defaultIndexMode")
    domain.check_choice(mode, "/defaultIndexMode", domain.MODES)
    bucket = bucket_of(ctx, params)
    _check_mode(mode, bucket.created_at, "/defaultIndexMode")
    repository.set_default_mode(ctx.db, bucket.id, mode)
    return {}


def create_index(ctx: Context, params: Params) -> Outcome:
    name, dimension, metric = params.get("indexName"), params.get("dimension"), params.get("distanceMetric")
    domain.check_name(name, "/indexName", "index")
    domain.check_choice(params.get("dataType"), "/dataType", ("float32",))
    domain.check_range(dimension, "/dimension", 1, domain.MAX_DIMENSION)
    domain.check_choice(metric, "/distanceMetric", domain.METRICS)
    configuration = params.get("metadataConfiguration") or {}
    hidden = domain.non_filterable_keys(configuration.get("nonFilterableMetadataKeys"))
    path = "/metadataConfiguration/textSearchConfigurations"
    fields = domain.text_fields(configuration.get("textSearchConfigurations"), path)
    encryption = domain.check_encryption(params.get("encryptionConfiguration"))
    tags = params.get("tags") or {}
    domain.check_tags(tags)
    bucket = bucket_of(ctx, params)
    if fields and bucket.default_mode != "ENHANCED":
        raise _needs_enhanced("Full-text search", path)
    if repository.count_indexes(ctx.db, bucket.id) >= domain.INDEXES_PER_BUCKET:
        raise domain.over_quota(f"You can have at most {domain.INDEXES_PER_BUCKET} vector indexes in a vector bucket")
    added = repository.add_index(
        ctx.db, bucket.id, name, ctx.now, dimension, metric, bucket.default_mode, hidden, fields, encryption
    )
    if not added:
        raise domain.conflict("An index with the specified name already exists")
    arn = repository.index_arn(ctx.scope, bucket.name, name)
    repository.put_tags(ctx.db, arn, tags)
    return {"indexArn": arn}


def get_index(ctx: Context, params: Params) -> Outcome:
    spec = index_of(ctx, params)
    described = {
        **_summary(spec),
        "dataType": "float32",
        "dimension": spec.dimension,
        "distanceMetric": spec.metric,
        "encryptionConfiguration": _encryption(spec.sse_type, spec.kms_key_arn),
        "indexMode": spec.mode,
    }
    configuration: Params = {}
    if spec.non_filterable:
        configuration["nonFilterableMetadataKeys"] = list(spec.non_filterable)
    if spec.text_fields:
        configuration["textSearchConfigurations"] = [
            {"metadataKey": field.key, "status": "ACTIVE"} | ({"language": field.language} if field.language else {})
            for field in spec.text_fields
        ]
    if configuration:
        described["metadataConfiguration"] = configuration
    return {"index": described}


def list_indexes(ctx: Context, params: Params) -> Outcome:
    bucket = bucket_of(ctx, params)
    what = f"indexes:{bucket.id}:{params.get('prefix', '')}"
    limit, prefix, after = _listing(params, what)
    found = repository.indexes(ctx.db, bucket.id, prefix, after, limit + 1)
    output: Params = {"indexes": [_summary(spec) for spec in found[:limit]]}
    if len(found) > limit:
        output["nextToken"] = page_token(what, found[limit - 1].name)
    return output


def list_tags_for_resource(ctx: Context, params: Params) -> Outcome:
    return {"tags": repository.tags(ctx.db, _resource(ctx, params))}


def tag_resource(ctx: Context, params: Params) -> Outcome:
    given = params.get("tags") or {}
    domain.check_tags(given)
    arn = _resource(ctx, params)
    domain.check_tags(repository.tags(ctx.db, arn) | given)
    repository.put_tags(ctx.db, arn, given)
    return {}


def untag_resource(ctx: Context, params: Params) -> Outcome:
    repository.remove_tags(ctx.db, _resource(ctx, params), params.get("tagKeys") or [])
    return {}


def update_index_mode(ctx: Context, params: Params) -> Outcome:
    mode = params.get("indexMode")
    domain.check_choice(mode, "/indexMode", domain.MODES)
    spec = index_of(ctx, params)
    _check_mode(mode, spec.bucket_created_at, "/indexMode")
    if mode == "CLASSIC" and spec.text_fields:
        raise _needs_enhanced("Full-text search", "/indexMode")
    repository.set_mode(ctx.db, spec.id, mode)
    return {}


class IndexChanges:
    """Operations on indexes whose search structures must follow."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def delete_index(self, ctx: Context, params: Params) -> Outcome:
        spec = index_of(ctx, params)
        repository.remove_index(ctx.db, spec.id)
        repository.remove_tags(ctx.db, spec.arn)
        ctx.db.after_commit(lambda: self._desk.discard(spec.id))
        ctx.db.notify(GARBAGE)
        return {}

    def update_metadata_configuration(self, ctx: Context, params: Params) -> Outcome:
        add, delete = params.get("add"), params.get("delete")
        if (add is None) == (delete is None):
            text = "Must specify either add or delete, but not both"
            raise domain.invalid(text, ("/add", text))
        change = _added(add) if add is not None else _deleted(delete)
        spec = index_of(ctx, params)
        if spec.mode != "ENHANCED":
            raise _needs_enhanced("Full-text search", "/indexName")
        fields = change(spec.text_fields)
        repository.set_text_fields(ctx.db, spec.id, fields)
        repository.drop_copy(ctx.db, spec.id)
        ctx.db.after_commit(lambda: self._desk.discard(spec.id))
        return {"indexArn": spec.arn}


Fields = tuple[domain.TextField, ...]


def _added(given: Params) -> Callable[[Fields], Fields]:
    path = "/add/textSearchConfigurations"
    new = domain.text_fields(given.get("textSearchConfigurations"), path)
    if not new:
        raise domain.constraint(path, "Member must not be empty")

    def change(old: Fields) -> Fields:
        known = {field.key for field in old}
        for field in new:
            if field.key in known:
                raise domain.conflict(f"A text search configuration for metadata key '{field.key}' already exists")
        if len(old) + len(new) > domain.CONFIGURED_KEYS:
            text = f"An index can have at most {domain.CONFIGURED_KEYS} text search configurations"
            raise domain.invalid(text, (path, text))
        return (*old, *new)

    return change


def _deleted(given: Params) -> Callable[[Fields], Fields]:
    path = "/delete/textSearchConfigurations"
    listed = given.get("textSearchConfigurations") or []
    domain.check_length(listed, path, 1, domain.CONFIGURED_KEYS)
    gone = {one.get("metadataKey") for one in listed}

    def change(old: Fields) -> Fields:
        if not gone <= {field.key for field in old}:
            raise domain.not_found("text search configuration")
        return tuple(field for field in old if field.key not in gone)

    return change


def _resource(ctx: Context, params: Params) -> str:
    """The ARN of an existing bucket or index."""
    arn = params.get("resourceArn") or ""
    if "/index/" in arn:
        return index_of(ctx, {"indexArn": arn}).arn
    return bucket_of(ctx, {"vectorBucketArn": arn}).arn


def _listing(params: Params, what: str) -> tuple[int, str, str]:
    limit, prefix = params.get("maxResults", LIST_LIMIT), params.get("prefix")
    domain.check_range(limit, "/maxResults", 1, LIST_LIMIT)
    if prefix is not None:
        domain.check_length(prefix, "/prefix", 1, 63)
    return limit, prefix or "", str(page_start(params, what, ""))


def _check_mode(mode: str, bucket_created_at: float, path: str) -> None:
    if mode == "CLASSIC" and bucket_created_at >= domain.CLASSIC_UNTIL:
        text = "CLASSIC mode is only available in vector buckets created before September 30, 2026"
        raise domain.invalid(text, (path, text))


def _needs_enhanced(what: str, path: str) -> Exception:
    text = f"{what} requires a vector index in ENHANCED mode"
    return domain.invalid(text, (path, text))


def _is_statement(statement: object) -> bool:
    return isinstance(statement, dict) and statement.get("Effect") in ("Allow", "Deny") and "Principal" in statement


def _summary(spec: domain.IndexSpec) -> Params:
    return {
        "vectorBucketName": spec.bucket,
        "indexName": spec.name,
        "indexArn": spec.arn,
        "creationTime": _time(spec.created_at),
    }


def _encryption(sse_type: str, kms_key_arn: str | None) -> Params:
    return {"sseType": sse_type} | ({"kmsKeyArn": kms_key_arn} if kms_key_arn else {})


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(int(epoch_s), UTC)


OPERATIONS: dict[str, Operation] = {
    "CreateVectorBucket": create_vector_bucket,
    "GetVectorBucket": get_vector_bucket,
    "ListVectorBuckets": list_vector_buckets,
    "DeleteVectorBucket": delete_vector_bucket,
    "PutVectorBucketPolicy": put_vector_bucket_policy,
    "GetVectorBucketPolicy": get_vector_bucket_policy,
    "DeleteVectorBucketPolicy": delete_vector_bucket_policy,
    "PutVectorBucketDefaultIndexMode": put_vector_bucket_default_index_mode,
    "CreateIndex": create_index,
    "GetIndex": get_index,
    "ListIndexes": list_indexes,
    "UpdateIndexMode": update_index_mode,
    "ListTagsForResource": list_tags_for_resource,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
}


class S3VectorsService:
    """S3 Vectors over the platform's database; search structures lie with `desk`."""

    name = "s3vectors"
    schema = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        changes, vectors = IndexChanges(desk), VectorOperations(desk)
        self.operations: dict[str, Operation] = {
            **OPERATIONS,
            "DeleteIndex": changes.delete_index,
            "UpdateMetadataConfiguration": changes.update_metadata_configuration,
            "PutVectors": vectors.put_vectors,
            "GetVectors": vectors.get_vectors,
            "ListVectors": vectors.list_vectors,
            "DeleteVectors": vectors.delete_vectors,
            "QueryVectors": vectors.query_vectors,
        }

    def stop(self) -> None:
        """The machine has stopped and the database is still open."""
        self.desk.stop()


def build(platform: Platform) -> S3VectorsService:
    db, background, machine = platform.db, platform.background, platform.machine
    folder = None if db.directory is None else db.directory / FOLDER
    desk = Desk(db, platform.clock, background, machine, copies=Copies(db, background, machine, folder))
    platform.machine.add_loop(desk)
    return S3VectorsService(desk)
