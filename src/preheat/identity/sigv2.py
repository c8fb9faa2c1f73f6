"""Signature Version 2 of S3, in the query string or the header: what boto3 still makes of `generate_presigned_url`."""

import base64
import hmac
from dataclasses import dataclass
from urllib.parse import unquote

from preheat.identity import refusals
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest

SIGNED_PARAMETERS = frozenset(
    {
        "accelerate", "acl", "analytics", "cors", "delete", "inventory", "lifecycle", "location", "logging", "metrics",
        "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment", "restore", "select",
        "select-type", "storageClass", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning",
        "versions", "website", "response-cache-control", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-content-type", "response-expires",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignatureV2:
    """`expires` is the epoch second of a presigned URL, None for a header."""

    access_key: str
    signature: str
    token: str | None
    expires: int | None
    family: refusals.Family = "s3"


def parse(request: HttpRequest) -> SignatureV2 | None:
    """The request's version 2 signature, or None. Raises AccessDenied for a presigned URL that lacks a part."""
    authorization = request.headers.get("authorization", "")
    if authorization.startswith("AWS "):
        access_key, _, signature = authorization[4:].partition(":")
        return SignatureV2(access_key, signature, request.headers.get("x-amz-security-token"), None)
    if "AWSAccessKeyId=" not in request.query:
        return None
    values = dict(request.arguments())
    expires = values.get("Expires", "")
    if "Signature" not in values or not (expires.isascii() and expires.isdigit()):
        raise AwsError(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
            403,
        )
    token = values.get("x-amz-security-token") or request.headers.get("x-amz-security-token")
    return SignatureV2(values["AWSAccessKeyId"], values["Signature"], token, int(expires))


def check_time(signature: SignatureV2, now: float) -> None:
    """Raises AccessDenied for a presigned URL that has expired."""
    if signature.expires is not None and now > signature.expires:
        raise refusals.expired_url(signature.expires, now)


def string_to_sign(request: HttpRequest, signature: SignatureV2) -> str:
    arguments = request.arguments() if signature.expires is not None else []
    headers = {name.lower(): value for name, value in arguments} | request.headers
    amz = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers) if name.startswith("x-amz-"))
    kept = []
    for part in request.query.split("&") if request.query else ():
        name, equals, value = part.partition("=")
        if name in SIGNED_PARAMETERS:
            kept.append((name, name + equals + unquote(value)))
    resource = request.path + ("?" + "&".join(text for _, text in sorted(kept)) if kept else "")
    if signature.expires is not None:
        date = str(signature.expires)
    else:
        date = "" if "x-amz-date" in headers else headers.get("date", "")
    return "\n".join(
        (request.method, headers.get("content-md5", ""), headers.get("content-type", ""), date, amz + resource)
    )


def verify(request: HttpRequest, signature: SignatureV2, secret: str) -> None:
    """Raises SignatureDoesNotMatch unless `secret` made the signature."""
    text = string_to_sign(request, signature)
    expected = base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()
    if not hmac.compare_digest(expected.encode(), signature.signature.encode()):
        raise refusals.mismatch(
            "s3",
            {
                "AWSAccessKeyId": signature.access_key,
                "StringToSign": text,
                "SignatureProvided": signature.signature,
            },
        )
