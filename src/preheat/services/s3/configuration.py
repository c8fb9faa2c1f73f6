"""What is configured on a bucket: notifications, CORS, tags, policy, public access block, encryption, ownership,
versioning. README.md says which of them act."""

import json
from collections.abc import Callable
from typing import Any

from preheat.identity import grants
from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Reply
from preheat.services.s3 import notifications, repository
from preheat.services.s3.domain import (
    MAX_BUCKET_TAGS,
    invalid_argument,
    malformed_xml,
    not_implemented,
    tag_set,
)
from preheat.services.s3.shelf import Shelf, check_acl, owner

MAX_POLICY_BYTES = 20_480
MAX_CORS_RULES = 100
CORS_METHODS = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD"})
OWNERSHIP = frozenset({"BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"})
BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
DEFAULT_ENCRYPTION = {
    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
}


MISSING: dict[str, tuple[str, str]] = {
    "cors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "tagging": ("NoSuchTagSet", "The TagSet does not exist"),
    "policy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "public-access-block": (
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found",
    ),
    "ownership": ("OwnershipControlsNotFoundError", "The bucket ownership controls were not found"),
}


def configure_new(ctx: Context, bucket_id: int, params: Params) -> None:
    """A new bucket's defaults: public access blocked, ACLs disabled; and its tags."""
    ownership = params.get("ObjectOwnership", "BucketOwnerEnforced")
    if ownership not in OWNERSHIP:
        raise invalid_argument(
            f"Invalid x-amz-object-ownership header: {ownership}", "x-amz-object-ownership", ownership
        )
    repository.set_configuration(
        ctx.db, bucket_id, "ownership", json.dumps({"Rules": [{"ObjectOwnership": ownership}]})
    )
    repository.set_configuration(ctx.db, bucket_id, "public-access-block", json.dumps(dict.fromkeys(BLOCKS, True)))
    tags = (params.get("CreateBucketConfiguration") or {}).get("Tags")
    if tags:
        tag_set(tags, MAX_BUCKET_TAGS, "Bucket")
        repository.set_configuration(ctx.db, bucket_id, "tagging", json.dumps({"TagSet": tags}))


class Configuration:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def operations(self) -> dict[str, Operation]:
        return {
            "PutBucketNotificationConfiguration": self.put_notifications,
            "GetBucketNotificationConfiguration": self.get_notifications,
            "PutBucketCors": self._put("cors", _checked_cors),
            "GetBucketCors": self._get("cors"),
            "DeleteBucketCors": self._delete("cors"),
            "PutBucketTagging": self._put("tagging", _checked_tagging, 204),
            "GetBucketTagging": self._get("tagging"),
            "DeleteBucketTagging": self._delete("tagging"),
            "PutBucketPolicy": self.put_policy,
            "GetBucketPolicy": self._get("policy"),
            "DeleteBucketPolicy": self._delete("policy"),
            "PutPublicAccessBlock": self._put("public-access-block", _checked_block),
            "GetPublicAccessBlock": self._get("public-access-block", "PublicAccessBlockConfiguration"),
            "DeletePublicAccessBlock": self._delete("public-access-block"),
            "PutBucketEncryption": self._put("encryption", _checked_encryption),
            "GetBucketEncryption": self.get_encryption,
            "DeleteBucketEncryption": self._delete("encryption"),
            "PutBucketOwnershipControls": self._put("ownership", _checked_ownership),
            "GetBucketOwnershipControls": self._get("ownership", "OwnershipControls"),
            "DeleteBucketOwnershipControls": self._delete("ownership"),
            "PutBucketVersioning": self._put("versioning", _checked_versioning),
            "GetBucketVersioning": self.get_versioning,
            "GetBucketAcl": self.get_acl,
            "PutBucketAcl": self.put_acl,
            "GetObjectAcl": self.get_object_acl,
        }

    # -- one value per bucket -----------------------------------------------------------------------------------------

    def _put(self, kind: str, checked: Callable[[Params], Any], status: int | None = None) -> Operation:
        def put(ctx: Context, params: Params) -> Outcome:
            bucket = self._shelf.bucket(ctx, params)
            repository.set_configuration(ctx.db, bucket.id, kind, json.dumps(checked(params)))
            return Reply({}, status=status)

        return put

    def _get(self, kind: str, member: str | None = None) -> Operation:
        def get(ctx: Context, params: Params) -> Outcome:
            bucket = self._shelf.bucket(ctx, params)
            value = repository.configuration(ctx.db, bucket.id, kind)
            if value is None:
                code, message = MISSING[kind]
                raise AwsError(code, message, 404, fields={"BucketName": bucket.name})
            decoded = json.loads(value)
            return decoded if member is None else {member: decoded}

        return get

    def _delete(self, kind: str) -> Operation:
        def delete(ctx: Context, params: Params) -> Outcome:
            bucket = self._shelf.bucket(ctx, params)
            repository.delete_configuration(ctx.db, bucket.id, kind)
            return Reply({}, status=204)

        return delete

    def put_policy(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        checked = _checked_policy(params)
        block = repository.configuration(ctx.db, bucket.id, "public-access-block")
        blocked = block is not None and json.loads(block).get("BlockPublicPolicy")
        if ctx.machine.authorizer is not None and blocked and grants.is_public(params["Policy"]):
            raise AwsError(
                "AccessDenied",
                f"User: {ctx.principal.arn} is not authorized to perform: s3:PutBucketPolicy on resource: "
                f'"{bucket.arn}" because public policies are prevented by the BlockPublicPolicy setting in S3 Block '
                "Public Access.",
                403,
            )
        repository.set_configuration(ctx.db, bucket.id, "policy", json.dumps(checked))
        return Reply({}, status=204)

    def get_encryption(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        value = repository.configuration(ctx.db, bucket.id, "encryption")
        return {"ServerSideEncryptionConfiguration": DEFAULT_ENCRYPTION if value is None else json.loads(value)}

    def get_versioning(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        value = repository.configuration(ctx.db, bucket.id, "versioning")
        return {} if value is None else json.loads(value)

    # -- ACLs: disabled, the owner has everything ---------------------------------------------------------------------

    def get_acl(self, ctx: Context, params: Params) -> Outcome:
        account = self._shelf.bucket(ctx, params).account
        return {
            "Owner": owner(account),
            "Grants": [{"Grantee": {**owner(account), "Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}],
        }

    def put_acl(self, ctx: Context, params: Params) -> Outcome:
        self._shelf.bucket(ctx, params)
        if "AccessControlPolicy" in params:
            raise AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        check_acl(params)
        return {}

    def get_object_acl(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        if repository.present(ctx.db, bucket.id, params["Key"]) is None:
            raise AwsError("NoSuchKey", "The specified key does not exist.", 404, fields={"Key": params["Key"]})
        return self.get_acl(ctx, params)

    # -- notifications ------------------------------------------------------------------------------------------------

    def put_notifications(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        destinations = notifications.compile_configuration(params["NotificationConfiguration"], ctx.entropy.uuid)
        if not params.get("SkipDestinationValidation", False):
            for destination in destinations:
                notifications.check_destination(ctx, bucket, destination)
        repository.set_notifications(ctx.db, bucket.id, json.dumps(destinations) if destinations else None)
        for destination in destinations:
            notifications.send_test_event(ctx, bucket, destination)
        return {}

    def get_notifications(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        return notifications.described(notifications.configured(bucket))


# -- what each configuration must look like ---------------------------------------------------------------------------


def _checked_cors(params: Params) -> Params:
    rules = params["CORSConfiguration"]["CORSRules"]
    if not 1 <= len(rules) <= MAX_CORS_RULES:
        raise malformed_xml()
    for rule in rules:
        if not rule.get("AllowedOrigins") or not rule.get("AllowedMethods"):
            raise malformed_xml()
        for method in rule["AllowedMethods"]:
            if method not in CORS_METHODS:
                raise AwsError(
                    "InvalidRequest", f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
                )
        for member in ("AllowedOrigins", "AllowedHeaders"):
            for value in rule.get(member, ()):
                if value.count("*") > 1:
                    raise AwsError(
                        "InvalidRequest",
                        f'{member[:-1]} "{value}" can not have more than one wildcard.',
                    )
        for value in rule.get("ExposeHeaders", ()):
            if "*" in value:
                raise AwsError(
                    "InvalidRequest",
                    f'ExposeHeader "{value}" contains wildcard. We currently do not support wildcard for ExposeHeader.',
                )
    return {"CORSRules": rules}


def _checked_tagging(params: Params) -> Params:
    tags = params["Tagging"]["TagSet"]
    tag_set(tags, MAX_BUCKET_TAGS, "Bucket")
    return {"TagSet": tags}


def _checked_policy(params: Params) -> Params:
    text = params["Policy"]
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise AwsError("MalformedPolicy", "Normalized policy document exceeds the maximum allowed size of 20480 bytes")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise AwsError("MalformedPolicy", "Policies must be valid JSON and the first byte must be '{'")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not statements or not isinstance(statements, list):
        raise AwsError("MalformedPolicy", "Missing required field Statement")
    for statement in statements:
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise AwsError("MalformedPolicy", "Missing required field Effect")
        for one, other in (("Principal", "NotPrincipal"), ("Action", "NotAction"), ("Resource", "NotResource")):
            if one not in statement and other not in statement:
                raise AwsError("MalformedPolicy", f"Missing required field {one}")
    return {"Policy": text}


def _checked_block(params: Params) -> Params:
    given = params["PublicAccessBlockConfiguration"]
    return {name: bool(given.get(name, False)) for name in BLOCKS}


def _checked_encryption(params: Params) -> Params:
    rules = params["ServerSideEncryptionConfiguration"]["Rules"]
    if len(rules) != 1:
        raise malformed_xml()
    default = rules[0].get("ApplyServerSideEncryptionByDefault")
    if default is not None:
        if default.get("SSEAlgorithm") not in ("AES256", "aws:kms", "aws:kms:dsse"):
            raise malformed_xml()
        if "KMSMasterKeyID" in default and default["SSEAlgorithm"] == "AES256":
            raise invalid_argument(
                "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
                "ApplyServerSideEncryptionByDefault",
                default["SSEAlgorithm"],
            )
    return {"Rules": rules}


def _checked_ownership(params: Params) -> Params:
    rules = params["OwnershipControls"]["Rules"]
    if len(rules) != 1 or rules[0].get("ObjectOwnership") not in OWNERSHIP:
        raise malformed_xml()
    return {"Rules": rules}


def _checked_versioning(params: Params) -> Params:
    given = params["VersioningConfiguration"]
    status = given.get("Status")
    if status not in ("Enabled", "Suspended"):
        raise malformed_xml()
    if status == "Enabled" or given.get("MFADelete") == "Enabled" or "MFA" in params:
        raise not_implemented("Preheat does not keep object versions: versioning cannot be enabled.")
    return {"Status": status}
