"""AWS::S3: buckets with their sub-resources, and bucket policies."""

from collections.abc import Callable
from typing import Any

from preheat.template.definition import Call, Made, Resource, ResourceType, Script, properties, unused

Convert = Callable[[Any], dict[str, Any]]


def _renamed(value: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): item for key, item in value.items()}


def _cors(given: Any) -> dict[str, Any]:
    names = {"ExposedHeaders": "ExposeHeaders", "Id": "ID", "MaxAge": "MaxAgeSeconds"}
    return {"CORSConfiguration": {"CORSRules": [_renamed(rule, names) for rule in given["CorsRules"]]}}


def _notifications(given: Any) -> dict[str, Any]:
    kinds = (
        ("LambdaConfigurations", "Function", "LambdaFunctionConfigurations", "LambdaFunctionArn"),
        ("QueueConfigurations", "Queue", "QueueConfigurations", "QueueArn"),
        ("TopicConfigurations", "Topic", "TopicConfigurations", "TopicArn"),
    )
    out: dict[str, Any] = {}
    for source, target, made, arn in kinds:
        rules = []
        for item in given.get(source) or ():
            rule = {arn: item[target], "Events": [item["Event"]]}
            if "Filter" in item:
                rule["Filter"] = {"Key": {"FilterRules": item["Filter"]["S3Key"]["Rules"]}}
            rules.append(rule)
        if rules:
            out[made] = rules
    bridge = given.get("EventBridgeConfiguration")
    if bridge and str(bridge.get("EventBridgeEnabled", "true")).lower() == "true":
        out["EventBridgeConfiguration"] = {}
    return {"NotificationConfiguration": out}


def _encryption(given: Any) -> dict[str, Any]:
    names = {"ServerSideEncryptionByDefault": "ApplyServerSideEncryptionByDefault"}
    rules = [_renamed(rule, names) for rule in given["ServerSideEncryptionConfiguration"]]
    return {"ServerSideEncryptionConfiguration": {"Rules": rules}}


SETTINGS: tuple[tuple[str, str, Convert, str | None, dict[str, Any] | None], ...] = (
    ("OwnershipControls", "PutBucketOwnershipControls", lambda given: {"OwnershipControls": given},
     "DeleteBucketOwnershipControls", None),
    ("PublicAccessBlockConfiguration", "PutPublicAccessBlock",
     lambda given: {"PublicAccessBlockConfiguration": given}, "DeletePublicAccessBlock", None),
    ("BucketEncryption", "PutBucketEncryption", _encryption, "DeleteBucketEncryption", None),
    ("Tags", "PutBucketTagging", lambda given: {"Tagging": {"TagSet": given}}, "DeleteBucketTagging", None),
    ("CorsConfiguration", "PutBucketCors", _cors, "DeleteBucketCors", None),
    ("NotificationConfiguration", "PutBucketNotificationConfiguration", _notifications, None,
     {"NotificationConfiguration": {}}),
)  # fmt: skip
ACLS = {
    "Private": "private", "PublicRead": "public-read", "PublicReadWrite": "public-read-write",
    "AuthenticatedRead": "authenticated-read", "LogDeliveryWrite": "log-delivery-write",
    "BucketOwnerRead": "bucket-owner-read", "BucketOwnerFullControl": "bucket-owner-full-control",
}  # fmt: skip


def create_bucket(resource: Resource) -> Script:
    name, region = resource.name, resource.scope.region
    params: dict[str, Any] = {"Bucket": name}
    if region != "us-east-1":
        params["CreateBucketConfiguration"] = {"LocationConstraint": region}
    if resource.get("AccessControl"):
        params["ACL"] = ACLS.get(resource.get("AccessControl"), resource.get("AccessControl"))
    yield from unused(Call("s3", "HeadBucket", {"Bucket": name}), resource.type, name)
    yield Call("s3", "CreateBucket", params)
    yield Made(name)
    for key, operation, convert, _, _ in SETTINGS:
        if resource.get(key):
            yield Call("s3", operation, {"Bucket": name, **convert(resource.get(key))})
    return _attributes(resource, name)


def _attributes(resource: Resource, name: str) -> dict[str, Any]:
    region = resource.scope.region
    site = f"http://{name}.s3-website-{region}.amazonaws.com"
    return {
        "Arn": f"arn:aws:s3:::{name}",
        "DomainName": f"{name}.s3.amazonaws.com",
        "DualStackDomainName": f"{name}.s3.dualstack.{region}.amazonaws.com",
        "RegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
        "WebsiteURL": site,
    }


def update_bucket(resource: Resource) -> Script:
    name = resource.physical_id
    for key, put, convert, delete, empty in SETTINGS:
        if not resource.changed(key):
            continue
        if resource.get(key):
            yield Call("s3", put, {"Bucket": name, **convert(resource.get(key))})
        elif delete is not None:
            yield Call("s3", delete, {"Bucket": name})
        elif empty is not None:
            yield Call("s3", put, {"Bucket": name, **empty})
    if resource.changed("AccessControl"):
        acl = resource.get("AccessControl", "Private")
        yield Call("s3", "PutBucketAcl", {"Bucket": name, "ACL": ACLS.get(acl, acl)})
    return resource.attributes


def delete_bucket(resource: Resource) -> Script:
    yield Call("s3", "DeleteBucket", {"Bucket": resource.physical_id})
    return {}


def create_policy(resource: Resource) -> Script:
    yield from put_policy(resource)
    yield Made(resource.properties["Bucket"])
    return {}


def put_policy(resource: Resource) -> Script:
    policy = {"Bucket": resource.properties["Bucket"], "Policy": resource.properties["PolicyDocument"]}
    yield Call("s3", "PutBucketPolicy", policy)
    return {}


def delete_policy(resource: Resource) -> Script:
    yield Call("s3", "DeleteBucketPolicy", {"Bucket": resource.properties["Bucket"]})
    return {}


TYPES = (
    ResourceType(
        "AWS::S3::Bucket",
        properties(
            "BucketName CorsConfiguration NotificationConfiguration OwnershipControls "
            "PublicAccessBlockConfiguration Tags",
            replaces="BucketName",
            approximates={
                "AccessControl": "passed to S3; see its README for what access lists do",
                "BucketEncryption": "kept and shown; objects lie in the state directory unencrypted",
            },
            ignored={
                "AccelerateConfiguration": "there is no edge network on one machine",
                "AnalyticsConfigurations": "no storage class analysis",
                "IntelligentTieringConfigurations": "one class of storage",
                "InventoryConfigurations": "no inventory reports",
                "LifecycleConfiguration": "objects neither expire nor move",
                "LoggingConfiguration": "no server access logs",
                "MetricsConfigurations": "no request metrics",
                "ObjectLockConfiguration": "objects are not locked",
                "ObjectLockEnabled": "objects are not locked",
                "ReplicationConfiguration": "one machine, nothing to replicate to",
                "VersioningConfiguration": "S3 here keeps one version of an object",
                "WebsiteConfiguration": "buckets are not served as websites",
            },
        ),
        create_bucket,
        delete_bucket,
        update_bucket,
        attributes=("Arn", "DomainName", "DualStackDomainName", "RegionalDomainName", "WebsiteURL"),
        name_property="BucketName",
        name_limit=63,
        lower_name=True,
        tags="list",
    ),
    ResourceType(
        "AWS::S3::BucketPolicy",
        properties("Bucket PolicyDocument", replaces="Bucket", required="Bucket PolicyDocument"),
        create_policy,
        delete_policy,
        put_policy,
    ),
)
