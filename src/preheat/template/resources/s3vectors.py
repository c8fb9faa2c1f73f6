"""AWS::S3Vectors: vector buckets, their indexes and policies. Whatever changes besides tags makes a new one."""

from typing import Any

from preheat.template.definition import Call, Made, Resource, ResourceType, Script, properties, tag_map

INDEX = ("DataType", "DistanceMetric", "Dimension", "VectorBucketArn", "VectorBucketName")
NOT_ENCRYPTED = "passed to S3 Vectors and shown; vectors lie in the state directory unencrypted"


def _camel(value: Any) -> Any:
    """Members of the API begin with a small letter."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: _camel(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_camel(item) for item in value]
    return value


def create_bucket(resource: Resource) -> Script:
    params: dict[str, Any] = {"vectorBucketName": resource.name}
    given = resource.get("EncryptionConfiguration")
    if given:
        params["encryptionConfiguration"] = _camel(given)
    if resource.get("Tags"):
        params["tags"] = tag_map(resource.get("Tags"))
    yield Call("s3vectors", "CreateVectorBucket", params)
    arn = resource.scope.arn("s3vectors", f"bucket/{resource.name}")
    yield Made(arn)
    output = yield Call("s3vectors", "GetVectorBucket", {"vectorBucketName": resource.name}, ("vectorBucket",))
    bucket = output["vectorBucket"]
    return {"VectorBucketArn": bucket["vectorBucketArn"], "CreationTime": bucket["creationTime"]}


def update_tags(resource: Resource) -> Script:
    arn = resource.physical_id
    old, new = tag_map(resource.old.get("Tags")), tag_map(resource.get("Tags"))
    if set(old) - set(new):
        yield Call("s3vectors", "UntagResource", {"resourceArn": arn, "tagKeys": sorted(set(old) - set(new))})
    if new and new != old:
        yield Call("s3vectors", "TagResource", {"resourceArn": arn, "tags": new})
    return resource.attributes


def delete_bucket(resource: Resource) -> Script:
    yield Call("s3vectors", "DeleteVectorBucket", {"vectorBucketArn": resource.physical_id})
    return {}


def create_index(resource: Resource) -> Script:
    params = _camel(resource.pick(*INDEX, "EncryptionConfiguration"))
    params["indexName"] = resource.name
    metadata = resource.get("MetadataConfiguration")
    if metadata:
        params["metadataConfiguration"] = _camel(metadata)
    if resource.get("Tags"):
        params["tags"] = tag_map(resource.get("Tags"))
    yield Call("s3vectors", "CreateIndex", params)
    bucket = resource.get("VectorBucketArn") or resource.scope.arn(
        "s3vectors", f"bucket/{resource.get('VectorBucketName')}"
    )
    arn = f"{bucket}/index/{resource.name}"
    yield Made(arn)
    output = yield Call("s3vectors", "GetIndex", {"indexArn": arn}, ("index",))
    return {"IndexArn": output["index"]["indexArn"], "CreationTime": output["index"]["creationTime"]}


def delete_index(resource: Resource) -> Script:
    yield Call("s3vectors", "DeleteIndex", {"indexArn": resource.physical_id})
    return {}


def _bucket(resource: Resource) -> dict[str, Any]:
    return _camel(resource.pick("VectorBucketArn", "VectorBucketName"))


def create_policy(resource: Resource) -> Script:
    yield Call("s3vectors", "PutVectorBucketPolicy", {**_bucket(resource), "policy": resource.properties["Policy"]})
    yield Made(resource.get("VectorBucketArn") or resource.get("VectorBucketName"))
    return {}


def update_policy(resource: Resource) -> Script:
    yield Call("s3vectors", "PutVectorBucketPolicy", {**_bucket(resource), "policy": resource.properties["Policy"]})
    return {}


def delete_policy(resource: Resource) -> Script:
    yield Call("s3vectors", "DeleteVectorBucketPolicy", _bucket(resource))
    return {}


TYPES = (
    ResourceType(
        "AWS::S3Vectors::VectorBucket",
        properties(
            "VectorBucketName Tags",
            replaces="VectorBucketName EncryptionConfiguration",
            approximates={"EncryptionConfiguration": NOT_ENCRYPTED},
        ),
        create_bucket,
        delete_bucket,
        update_tags,
        attributes=("VectorBucketArn", "CreationTime"),
        name_property="VectorBucketName",
        name_limit=63,
        lower_name=True,
        tags="list",
    ),
    ResourceType(
        "AWS::S3Vectors::Index",
        properties(
            "DataType DistanceMetric Dimension IndexName MetadataConfiguration VectorBucketArn VectorBucketName Tags",
            replaces="DataType DistanceMetric Dimension IndexName MetadataConfiguration VectorBucketArn "
            "VectorBucketName EncryptionConfiguration",
            required="DataType DistanceMetric Dimension",
            approximates={"EncryptionConfiguration": NOT_ENCRYPTED},
        ),
        create_index,
        delete_index,
        update_tags,
        attributes=("IndexArn", "CreationTime"),
        name_property="IndexName",
        name_limit=63,
        lower_name=True,
        tags="list",
    ),
    ResourceType(
        "AWS::S3Vectors::VectorBucketPolicy",
        properties(
            "Policy VectorBucketArn VectorBucketName", replaces="VectorBucketArn VectorBucketName", required="Policy"
        ),
        create_policy,
        delete_policy,
        update_policy,
    ),
)
