"""Whether a request came by TLS. Its bytes are the same; what is said of it, and URLs made for it, are not."""

from preheat.kernel.http import HttpRequest


class SecureRequest(HttpRequest):
    """A request that came by TLS."""

    __slots__ = ()


def is_secure(request: HttpRequest | None) -> bool:
    return isinstance(request, SecureRequest)


def scheme_of(request: HttpRequest | None) -> str:
    """"https" or "http": by what the client came, for URLs that are made for it."""
    return "https" if isinstance(request, SecureRequest) else "http"
