"""The root user's access key, made when policies are enforced: the first credentials there are.

The key is kept in the database; `write_file` puts it into a file that only its owner can read.
"""

import json
import os
from pathlib import Path

from preheat.identity import sessions
from preheat.identity.principal import Identity, Known
from preheat.kernel.entropy import Entropy
from preheat.kernel.scope import DEFAULT_ACCOUNT
from preheat.store.database import Database

FILE_NAME = "root-credentials"
_NAME = "identity:root-key"
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def known(db: Database, access_key: str) -> Known | None:
    """The root user, if this is its key."""
    held = _held(db)
    if held is None or held[0] != access_key:
        return None
    arn = f"arn:aws:iam::{DEFAULT_ACCOUNT}:root"
    return Known(held[1], Identity(arn, DEFAULT_ACCOUNT, "root", DEFAULT_ACCOUNT, access_key))


def root_key(db: Database, entropy: Entropy) -> tuple[str, str]:
    """(access key id, secret), made once; call it inside a transaction."""
    held = _held(db)
    if held is None:
        secret = "".join(_ALPHABET[byte % 64] for byte in entropy.bytes(40))
        held = (sessions.new_access_key("AKIA", DEFAULT_ACCOUNT, entropy), secret)
        db.run("INSERT INTO meta (key, value) VALUES (?, ?)", _NAME, json.dumps(held))
    return held


def _held(db: Database) -> tuple[str, str] | None:
    text = db.value("SELECT value FROM meta WHERE key = ?", _NAME)
    if text is None:
        return None
    access_key, secret = json.loads(text)
    return access_key, secret


def write_file(directory: Path, key: tuple[str, str]) -> Path:
    """The key as shell text (`. root-credentials`), mode 0600; written anew when it does not say the same."""
    path = directory / FILE_NAME
    text = f"export AWS_ACCESS_KEY_ID={key[0]}\nexport AWS_SECRET_ACCESS_KEY={key[1]}\n"
    if path.exists() and path.read_text() == text:
        path.chmod(0o600)
        return path
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
    os.replace(temporary, path)
    return path
