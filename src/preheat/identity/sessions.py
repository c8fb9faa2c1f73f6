"""Temporary credentials that need no row: the token says who holds them and is sealed with a key of this state
directory, the secret follows from the token.

Access key ids carry their account as AWS's do, so that `account_of` reads it back.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from preheat.identity.principal import Identity, Known
from preheat.kernel.entropy import Entropy
from preheat.store.database import Database

_KEY_NAME = "identity:session-key"
_SEAL_BYTES = 16


@dataclass(frozen=True, slots=True)
class Session:
    """What a token says. `kind` is "role", or the kind of who asked for a session of its own; `expires` in epoch
    seconds, None for a function's own credentials."""

    access_key: str
    arn: str
    account: str
    kind: str
    user_id: str
    expires: int | None
    policies: Sequence[str] = ()
    policy_arns: Sequence[str] = ()
    tags: Sequence[Sequence[str]] = ()
    source_identity: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(self.arn, self.account, self.kind, self.user_id, self.access_key)


def session_key(db: Database, entropy: Entropy | None) -> bytes | None:
    """The key that seals tokens; made once, which needs `entropy` and a transaction. None when there is none yet."""
    text = db.value("SELECT value FROM meta WHERE key = ?", _KEY_NAME)
    if text is not None:
        return bytes.fromhex(text)
    if entropy is None:
        return None
    key = entropy.bytes(32)
    db.run("INSERT INTO meta (key, value) VALUES (?, ?)", _KEY_NAME, key.hex())
    return key


def new_access_key(prefix: str, account: str, entropy: Entropy) -> str:
    """`AKIA…` or `ASIA…`, 20 characters: 40 bits of account, 39 of chance."""
    chance = int.from_bytes(entropy.bytes(5), "big") >> 1
    value = (1 << 79) | (int(account) << 39) | chance
    return prefix + base64.b32encode(value.to_bytes(10, "big")).decode()


def account_of(access_key: str) -> str | None:
    """The account in an access key id, or None for text that is none."""
    try:
        value = int.from_bytes(base64.b32decode(access_key[4:]), "big")
    except ValueError:
        return None
    if len(access_key) != 20:
        return None
    return f"{(value >> 39) & ((1 << 40) - 1):012d}"


def seal(session: Session, key: bytes) -> tuple[str, str]:
    """(secret access key, session token)."""
    text = json.dumps(asdict(session), separators=(",", ":")).encode()
    token = base64.b64encode(hmac.digest(key, text, hashlib.sha256)[:_SEAL_BYTES] + text).decode()
    return _secret(token, key), token


def unseal(token: str, key: bytes) -> Session | None:
    """The session of a token that was sealed with this key, else None."""
    try:
        raw = base64.b64decode(token, validate=True)
    except ValueError:
        return None
    text = raw[_SEAL_BYTES:]
    if not hmac.compare_digest(raw[:_SEAL_BYTES], hmac.digest(key, text, hashlib.sha256)[:_SEAL_BYTES]):
        return None
    return Session(**json.loads(text))


def known(session: Session, token: str, key: bytes) -> Known:
    return Known(_secret(token, key), session.identity, token, session.expires)


def _secret(token: str, key: bytes) -> str:
    return base64.b64encode(hmac.digest(key, b"secret:" + token.encode(), hashlib.sha256)).decode()[:40]
