"""From a request to who sent it.

Until an IAM user has an access key, or `enforce` is set, every access key is good and acts as root; a key the platform
did issue is verified always. A presigned URL that has expired is refused in either case.
"""

import hmac
from collections.abc import Mapping

from preheat.identity import forms, refusals, sigv2, sigv4
from preheat.identity.principal import ANONYMOUS, Identity, Known, Lookup, root_of
from preheat.kernel.http import HttpRequest


class Authenticator:
    """One per server: it holds the cache of signing keys."""

    def __init__(self) -> None:
        self._verifier = sigv4.Verifier()

    def authenticate(self, request: HttpRequest, lookup: Lookup, *, enforce: bool, now: float) -> Identity:
        """Raises AwsError in the words of the request's protocol. `now` is the clients' time (`Clock.peer_now`)."""
        signature = sigv4.parse(request) or sigv2.parse(request)
        if signature is None:
            return _unsigned(request, enforce)
        known = lookup(signature.access_key, signature.token)
        strict = known is not None or enforce
        if isinstance(signature, sigv4.Signature):
            sigv4.check_time(signature, now, skew=strict)
        else:
            sigv2.check_time(signature, now)
        if known is None:
            return _unheard_of(signature, enforce)
        _check_held(signature, known, now)
        if isinstance(signature, sigv4.Signature):
            self._verifier.verify(request, signature, known.secret)
        else:
            sigv2.verify(request, signature, known.secret)
        return known.identity

    def authenticate_form(self, fields: Mapping[str, str], lookup: Lookup, *, enforce: bool, now: float) -> Identity:
        """Who signed the policy among the fields (names in lower case) of a form posted to an S3 bucket."""
        found = forms.parse(fields)
        if found is None:
            return ANONYMOUS if enforce else root_of()
        known = lookup(found.access_key, found.token)
        if known is None:
            return _unheard_of(found, enforce)
        _check_held(found, known, now)
        forms.verify(found, known.secret, self._verifier)
        return known.identity


Claim = sigv4.Signature | sigv2.SignatureV2 | forms.PolicySignature


def _unheard_of(claim: Claim, enforce: bool) -> Identity:
    """Whose key it is when nobody issued it. Raises AwsError with `enforce`."""
    if not enforce:
        return root_of(claim.access_key)
    if claim.token is not None:
        raise refusals.bad_token(claim.family, claim.token)
    raise refusals.unknown_key(claim.family, claim.access_key)


def _check_held(claim: Claim, known: Known, now: float) -> None:
    """Raises AwsError for a key that is switched off, a token that is another's or void."""
    family, token = claim.family, claim.token
    if not known.active:
        raise refusals.unknown_key(family, claim.access_key)
    if known.token is not None and not hmac.compare_digest(known.token.encode(), (token or "").encode()):
        raise refusals.bad_token(family, token)
    if known.expires is not None and now > known.expires:
        raise refusals.expired_token(family, token)


def _unsigned(request: HttpRequest, enforce: bool) -> Identity:
    if not enforce:
        return root_of()
    family = refusals.family_of(request, _service_unsigned(request))
    if family == "s3":
        return ANONYMOUS
    raise refusals.missing_token(family)


def _service_unsigned(request: HttpRequest) -> str:
    """An unsigned request without any mark of another protocol is S3's: public objects are read that way."""
    plain = "x-amz-target" not in request.headers and not request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "application/x-amz-json", "application/json")
    )
    return "s3" if plain and request.method in ("GET", "HEAD") and "Action=" not in request.query else ""
