"""Who logs in. While no user is registered (CREATE USER), any name and password are taken, and any key-pair token that
has not expired; from the first registered user on, only registered ones, with their password or key."""

import base64
import binascii
import hashlib
from typing import Any

import msgspec

from preheat.snowflake.engine import Engine, matches
from preheat.snowflake.errors import SnowflakeError

PASSWORDS = frozenset(("", "SNOWFLAKE"))
WRONG = "Incorrect username or password was specified."
EARLY_S = 60


def identified(engine: Engine, data: dict[str, Any]) -> str:
    """The user's name. Raises 390100 for a wrong name or password, 390144 for a token that is not valid, 390101 for a
    way to log in that this endpoint does not have."""
    name = str(data.get("LOGIN_NAME") or "").upper()
    way = str(data.get("AUTHENTICATOR") or "").upper()
    if way == "SNOWFLAKE_JWT":
        return _by_key(engine, name, str(data.get("TOKEN") or ""))
    if way not in PASSWORDS:
        raise SnowflakeError(390101, "08001", f"Authenticator {way} is not supported: use a password or a key pair.")
    password = str(data.get("PASSWORD") or "")
    registered, sealed, _ = engine.user(name)
    if not name or not password or (registered and (sealed is None or not matches(sealed, password))):
        raise SnowflakeError(390100, "08001", WRONG)
    return name


def _by_key(engine: Engine, name: str, token: str) -> str:
    invalid = SnowflakeError(390144, "08001", f"JWT token is invalid. [{engine.entropy.uuid()}]")
    try:
        head, claims, signature = token.split(".")
        known = msgspec.json.decode(_decoded(claims))
        issuer, expires = str(known["iss"]), float(known["exp"])
    except (ValueError, KeyError, TypeError, binascii.Error, msgspec.DecodeError) as error:
        raise invalid from error
    parts = issuer.split(".")
    if len(parts) < 3 or parts[-2] != name or expires < engine.clock.peer_now() - EARLY_S:
        raise invalid
    registered, _, key = engine.user(name)
    if not registered:
        return name
    if key is None or not _signed(key, f"{head}.{claims}".encode(), _decoded(signature), parts[-1]):
        raise invalid
    return name


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signed(key: str, content: bytes, signature: bytes, fingerprint: str) -> bool:
    """Whether the registered public key (base64 of its DER form) made the signature, and is the one that is named."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    try:
        der = base64.b64decode(key)
        public: Any = serialization.load_der_public_key(der)
        public.verify(signature, content, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return fingerprint == "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()
