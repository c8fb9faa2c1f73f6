"""From a request to who sent it.

Until an IAM user has an access key, or `enforce` is set, every access key is good and acts as root; a key the platform
did issue is verified always. A presigned URL that has expired is refused in either case.
"""

import hmac

from preheat.identity import refusals, sigv2, sigv4
from preheat.identity.principal import ANONYMOUS, Identity, Lookup, root_of
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
        family = signature.family
        if known is None:
            if not enforce:
                return root_of(signature.access_key)
            if signature.token is not None:
                raise refusals.bad_token(family, signature.token)
            raise refusals.unknown_key(family, signature.access_key)
        if not known.active:
            raise refusals.unknown_key(family, signature.access_key)
        if known.token is not None and not hmac.compare_digest(known.token.encode(), (signature.token or "").encode()):
            raise refusals.bad_token(family, signature.token)
        if known.expires is not None and now > known.expires:
            raise refusals.expired_token(family, signature.token)
        if isinstance(signature, sigv4.Signature):
            self._verifier.verify(request, signature, known.secret)
        else:
            sigv2.verify(request, signature, known.secret)
        return known.identity


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
