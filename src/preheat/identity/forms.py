"""Who signed the policy of a form that a browser posts to an S3 bucket.

Version 4 is in the fields x-amz-algorithm, x-amz-credential, x-amz-date and x-amz-signature; version 2, which boto3
makes unless it is told otherwise, in AWSAccessKeyId and signature. What is signed is the field `policy` as it stands.
"""

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from preheat.identity import refusals, sigv4
from preheat.identity.refusals import Family
from preheat.kernel.errors import AwsError

MALFORMED = (
    'Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/'
    'REGION/SERVICE/aws4_request".'
)
WRONG_ALGORITHM = 'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256 and AWS4-ECDSA-P256-SHA256"'


@dataclass(frozen=True, slots=True)
class PolicySignature:
    """`scoped` is the claim of version 4; None for version 2."""

    access_key: str
    policy: str
    signature: str
    token: str | None
    scoped: sigv4.Signature | None
    family: Family = "s3"


def parse(fields: Mapping[str, str]) -> PolicySignature | None:
    """The signature in a form's fields, whose names are in lower case; None when no policy is there. Raises AwsError
    for one that lacks a part."""
    policy = fields.get("policy")
    if policy is None:
        return None
    token = fields.get("x-amz-security-token")
    if "awsaccesskeyid" in fields:
        return PolicySignature(fields["awsaccesskeyid"], policy, needed(fields, "signature"), token, None)
    if needed(fields, "x-amz-algorithm") != sigv4.ALGORITHM:
        raise refusals.query_parameters(WRONG_ALGORITHM)
    credential = needed(fields, "x-amz-credential").rsplit("/", 4)
    amz_date, signature = needed(fields, "x-amz-date"), needed(fields, "x-amz-signature")
    if len(credential) != 5 or credential[3:] != ["s3", "aws4_request"] or not all(credential):
        raise refusals.query_parameters(MALFORMED)
    if credential[1] != amz_date[:8]:
        raise refusals.query_parameters(
            f'Invalid credential date "{credential[1]}". This date is not the same as X-Amz-Date: "{amz_date[:8]}".'
        )
    access_key, date, region, service, _ = credential
    scoped = sigv4.Signature(access_key, date, region, service, amz_date, 0.0, (), signature, token, "s3")
    return PolicySignature(access_key, policy, signature, token, scoped)


def needed(fields: Mapping[str, str], name: str) -> str:
    """Raises InvalidArgument when the form lacks this field, or has it behind the file."""
    if not fields.get(name):
        raise AwsError(
            "InvalidArgument",
            f"Bucket POST must contain a field named '{name}'.  If it is specified, please check the order of the "
            "fields.",
            fields={"ArgumentName": name, "ArgumentValue": ""},
        )
    return fields[name]


def verify(found: PolicySignature, secret: str, verifier: sigv4.Verifier) -> None:
    """Raises SignatureDoesNotMatch unless `secret` signed the policy."""
    text = found.policy.encode()
    if found.scoped is None:
        expected = base64.b64encode(hmac.digest(secret.encode(), text, "sha1")).decode()
    else:
        expected = hmac.digest(verifier.signing_key(secret, found.scoped), text, "sha256").hex()
    if not hmac.compare_digest(expected.encode(), found.signature.encode()):
        raise refusals.mismatch(
            "s3",
            {
                "AWSAccessKeyId": found.access_key,
                "StringToSign": found.policy,
                "SignatureProvided": found.signature,
            },
        )
