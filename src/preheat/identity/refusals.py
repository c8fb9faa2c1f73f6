"""What a client is told when its signature does not do, in the words of the family of protocols it speaks.

s3      REST-XML: InvalidAccessKeyId, SignatureDoesNotMatch, RequestTimeTooSkewed
query   IAM, STS, SNS, CloudFormation: InvalidClientTokenId, SignatureDoesNotMatch
json    everything else: UnrecognizedClientException, InvalidSignatureException
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest

Family = Literal["s3", "query", "json"]

_SECURITY_TOKEN = "The security token included in the request is invalid."
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)


def family_of(request: HttpRequest, service: str) -> Family:
    """The family of a request; `service` is the one in its credential scope."""
    if service == "s3":
        return "s3"
    if "x-amz-target" in request.headers:
        return "json"
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("application/x-www-form-urlencoded") or "Action=" in request.query:
        return "query"
    return "json"


def basic_time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%dT%H%M%SZ")


def long_time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def missing_token(family: Family) -> AwsError:
    if family == "s3":
        return AwsError("AccessDenied", "Access Denied", 403)
    code = "MissingAuthenticationToken" if family == "query" else "MissingAuthenticationTokenException"
    return AwsError(code, "Missing Authentication Token", 403)


def incomplete(family: Family, message: str) -> AwsError:
    if family == "s3":
        return AwsError("AuthorizationHeaderMalformed", f"The authorization header is malformed; {message}", 400)
    code = "IncompleteSignature" if family == "query" else "IncompleteSignatureException"
    return AwsError(code, message, 400 if family == "query" else 403)


def unknown_key(family: Family, access_key: str) -> AwsError:
    if family == "s3":
        return AwsError(
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
            403,
            fields={"AWSAccessKeyId": access_key},
        )
    code = "InvalidClientTokenId" if family == "query" else "UnrecognizedClientException"
    return AwsError(code, _SECURITY_TOKEN, 403)


def bad_token(family: Family, token: str | None) -> AwsError:
    if family == "s3":
        return AwsError(
            "InvalidToken",
            "The provided token is malformed or otherwise invalid.",
            400,
            fields={} if token is None else {"Token-0": token},
        )
    return unknown_key(family, "")


def expired_token(family: Family, token: str | None) -> AwsError:
    if family == "s3":
        return AwsError(
            "ExpiredToken",
            "The provided token has expired.",
            400,
            fields={} if token is None else {"Token-0": token},
        )
    code = "ExpiredToken" if family == "query" else "ExpiredTokenException"
    return AwsError(code, "The security token included in the request is expired", 403)


def mismatch(family: Family, details: Mapping[str, str]) -> AwsError:
    """`details` are S3's: AWSAccessKeyId, StringToSign, SignatureProvided, CanonicalRequest."""
    if family == "s3":
        fields = dict(details)
        for name in ("StringToSign", "CanonicalRequest"):
            if name in fields:
                fields[name + "Bytes"] = fields[name].encode().hex(" ")
        return AwsError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and "
            "signing method.",
            403,
            fields=fields,
        )
    code = "SignatureDoesNotMatch" if family == "query" else "InvalidSignatureException"
    return AwsError(code, _MISMATCH, 403)


def unsigned_headers(family: Family, names: list[str]) -> AwsError:
    if family == "s3":
        return AwsError(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            403,
            fields={"HeadersNotSigned": ", ".join(names)},
        )
    code = "SignatureDoesNotMatch" if family == "query" else "InvalidSignatureException"
    return AwsError(code, f"'{names[0]}' must be a 'SignedHeader' in the AWS Authorization.", 403)


def skewed(family: Family, signed_at: float, now: float, allowed_s: int) -> AwsError:
    if family == "s3":
        return AwsError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            403,
            fields={
                "RequestTime": basic_time(signed_at),
                "ServerTime": long_time(now),
                "MaxAllowedSkewMilliseconds": str(allowed_s * 1000),
            },
        )
    code = "SignatureDoesNotMatch" if family == "query" else "InvalidSignatureException"
    signed, server, minutes = basic_time(signed_at), basic_time(now), allowed_s // 60
    if signed_at < now:
        limit = basic_time(now - allowed_s)
        text = f"Signature expired: {signed} is now earlier than {limit} ({server} - {minutes} min.)"
    else:
        limit = basic_time(now + allowed_s)
        text = f"Signature not yet current: {signed} is still later than {limit} ({server} + {minutes} min.)"
    return AwsError(code, text, 403)


def expired_url(expires_at: float, now: float, lifetime_s: int | None = None) -> AwsError:
    fields = {} if lifetime_s is None else {"X-Amz-Expires": str(lifetime_s)}
    fields |= {"Expires": long_time(expires_at), "ServerTime": long_time(now)}
    return AwsError("AccessDenied", "Request has expired", 403, fields=fields)


def query_parameters(message: str) -> AwsError:
    return AwsError("AuthorizationQueryParametersError", message, 400)
