"""Who calls, and what is known of an access key."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from preheat.kernel.scope import DEFAULT_ACCOUNT


@dataclass(frozen=True, slots=True)
class Identity:
    """`kind` is "root", "user", "role" (a session of an assumed role) or "anonymous"."""

    arn: str
    account: str
    kind: str = "root"
    user_id: str = ""
    access_key: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What the platform holds about an access key. `token` is the session token that must come with it, if any;
    `expires` the epoch second after which it is void."""

    secret: str
    identity: Identity
    token: str | None = None
    expires: float | None = None
    active: bool = True


Lookup = Callable[[str, str | None], Known | None]
"""(access key, the session token that came with it) -> Known, or None for a key nobody issued."""


@lru_cache(4_096)
def root_of(access_key: str = "") -> Identity:
    """The root of an account: of the one that a 12-digit access key names, else of the default account."""
    account = access_key if len(access_key) == 12 and access_key.isascii() and access_key.isdigit() else DEFAULT_ACCOUNT
    return Identity(f"arn:aws:iam::{account}:root", account, "root", account, access_key)


ANONYMOUS = Identity("anonymous", "", "anonymous")
