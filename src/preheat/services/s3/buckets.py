"""Buckets: create, head, list, delete, and where they are."""

import re

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Operation, Outcome, Params, Reply
from preheat.services.s3 import configuration, repository
from preheat.services.s3.domain import check_bucket_name, invalid_argument, moment, not_implemented
from preheat.services.s3.shelf import Shelf, check_acl, owner, refuse

_REGION = re.compile(r"EU|[a-z]{2,4}(-[a-z]+)+-[0-9]")


class Buckets:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def operations(self) -> dict[str, Operation]:
        return {
            "ListBuckets": self.list_buckets,
            "CreateBucket": self.create_bucket,
            "HeadBucket": self.head_bucket,
            "DeleteBucket": self.delete_bucket,
            "GetBucketLocation": self.get_bucket_location,
        }

    def list_buckets(self, ctx: Context, params: Params) -> Outcome:
        prefix, limit = params.get("Prefix", ""), params.get("MaxBuckets", 10_000)
        if not 1 <= limit <= 10_000:
            raise invalid_argument("Argument max-buckets must be an integer between 1 and 10000", "max-buckets", limit)
        found = repository.buckets(
            ctx.db,
            ctx.scope.account,
            prefix,
            params.get("ContinuationToken", ""),
            params.get("BucketRegion"),
            limit + 1,
        )
        output: Params = {"Owner": owner(ctx.scope.account), "Buckets": []}
        for bucket in found[:limit]:
            entry: Params = {"Name": bucket.name, "CreationDate": moment(bucket.created), "BucketArn": bucket.arn}
            if not {"MaxBuckets", "BucketRegion", "Prefix"}.isdisjoint(params):
                entry["BucketRegion"] = bucket.region
            output["Buckets"].append(entry)
        if len(found) > limit:
            output["ContinuationToken"] = found[limit - 1].name
        if "Prefix" in params:
            output["Prefix"] = prefix
        return output

    def create_bucket(self, ctx: Context, params: Params) -> Outcome:
        name = params["Bucket"]
        check_bucket_name(name)
        if params.get("BucketNamespace", "global") != "global":
            raise not_implemented("Account-regional bucket namespaces are not implemented.", "x-amz-bucket-namespace")
        if params.get("ObjectLockEnabledForBucket"):
            raise not_implemented("Object Lock is not implemented.", "x-amz-bucket-object-lock-enabled")
        refuse(params)
        check_acl(params)
        given = params.get("CreateBucketConfiguration") or {}
        if "Bucket" in given or "Location" in given:
            raise not_implemented("Directory buckets are not implemented.")
        region = _region(ctx.scope.region, given.get("LocationConstraint"))
        present = repository.bucket(ctx.db, name)
        if present is not None and present.account != ctx.scope.account:
            raise AwsError(
                "BucketAlreadyExists",
                "The requested bucket name is not available. The bucket namespace is shared by all users of the "
                "system. Please select a different name and try again.",
                409,
                fields={"BucketName": name},
            )
        if present is not None and not region == present.region == "us-east-1":
            raise AwsError(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you already own it.",
                409,
                fields={"BucketName": name},
            )
        if present is None:
            bucket_id = repository.add_bucket(ctx.db, name, ctx.scope.account, region, int(ctx.now))
            configuration.configure_new(ctx, bucket_id, params)
        location = f"/{name}" if region == "us-east-1" else f"http://{name}.s3.amazonaws.com/"
        return {"Location": location, "BucketArn": f"arn:aws:s3:::{name}"}

    def head_bucket(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        return {"BucketRegion": bucket.region, "AccessPointAlias": False, "BucketArn": bucket.arn}

    def delete_bucket(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        if repository.bucket_in_use(ctx.db, bucket.id):
            raise AwsError(
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty",
                409,
                fields={"BucketName": bucket.name},
            )
        for upload in repository.uploads(ctx.db, bucket.id, "", "", "", -1):
            for name in repository.delete_upload(ctx.db, upload.id):
                self._shelf.garbage.discard(ctx, name)
        repository.delete_bucket(ctx.db, bucket.id)
        return Reply({}, status=204)

    def get_bucket_location(self, ctx: Context, params: Params) -> Outcome:
        bucket = self._shelf.bucket(ctx, params)
        return {} if bucket.region == "us-east-1" else {"LocationConstraint": bucket.region}


def _region(endpoint: str, constraint: str | None) -> str:
    """Where a new bucket goes. Raises InvalidLocationConstraint, IllegalLocationConstraintException."""
    if constraint in ("us-east-1", "") or (constraint is not None and not _REGION.fullmatch(constraint)):
        raise AwsError(
            "InvalidLocationConstraint",
            "The specified location-constraint is not valid",
            fields={"LocationConstraint": constraint},
        )
    if endpoint == "us-east-1":
        return {None: "us-east-1", "EU": "eu-west-1"}.get(constraint, constraint)
    if constraint != endpoint:
        what = "unspecified" if constraint is None else constraint
        raise AwsError(
            "IllegalLocationConstraintException",
            f"The {what} location constraint is incompatible for the region specific endpoint "
            "this request was sent to.",
        )
    return endpoint
