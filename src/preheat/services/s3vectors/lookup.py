"""What a request names: its bucket or index, and the place in a listing where it goes on."""

import base64
import hashlib
import json
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Params
from preheat.services.s3vectors import domain, repository
from preheat.services.s3vectors.domain import IndexSpec
from preheat.services.s3vectors.repository import Bucket


def bucket_of(ctx: Context, params: Params) -> Bucket:
    """The bucket that a request names; raises ValidationException or NotFoundException."""
    name, arn = params.get("vectorBucketName"), params.get("vectorBucketArn")
    if (name is None) == (arn is None):
        raise domain.invalid("Must specify either vectorBucketName or vectorBucketArn but not both")
    if arn is not None:
        name = domain.bucket_of_arn(arn)
        found = repository.bucket(ctx.db, ctx.scope, name) if _here(ctx, arn) else None
    else:
        domain.check_length(name, "/vectorBucketName", 3, 63)
        found = repository.bucket(ctx.db, ctx.scope, name)
    if found is None:
        raise domain.not_found("vector bucket")
    return found


def index_of(ctx: Context, params: Params) -> IndexSpec:
    """The index that a request names; raises ValidationException or NotFoundException."""
    bucket, name, arn = params.get("vectorBucketName"), params.get("indexName"), params.get("indexArn")
    by_name = bucket is not None and name is not None
    if by_name == (arn is not None) or (arn is not None and (bucket is not None or name is not None)):
        raise domain.invalid("Must specify either indexArn or both vectorBucketName and indexName")
    if arn is not None:
        bucket, name = domain.index_of_arn(arn)
        found = repository.index(ctx.db, ctx.scope, bucket, name) if _here(ctx, arn) else None
    else:
        domain.check_length(bucket, "/vectorBucketName", 3, 63)
        domain.check_length(name, "/indexName", 3, 63)
        found = repository.index(ctx.db, ctx.scope, bucket, name)
    if found is None:
        raise domain.not_found("index")
    return found


def page_token(what: str, position: Any) -> str:
    """A token that goes on at `position` in the listing `what`; no other listing accepts it."""
    return base64.urlsafe_b64encode(json.dumps([_digest(what), position]).encode()).decode()


def page_start(params: Params, what: str, first: Any) -> Any:
    """Where the request's nextToken goes on, `first` without one. Raises ValidationException for a foreign token."""
    token = params.get("nextToken")
    if token is None:
        return first
    try:
        digest, position = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        raise bad_token() from None
    if digest != _digest(what) or not isinstance(position, type(first)):
        raise bad_token()
    return position


def bad_token() -> AwsError:
    return domain.invalid("Invalid pagination token", ("/nextToken", "Invalid pagination token"))


def _digest(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()[:24]


def _here(ctx: Context, arn: str) -> bool:
    return Arn.parse(arn).scope == ctx.scope
