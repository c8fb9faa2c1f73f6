"""Encryption of secret values at rest: AES-256-GCM with a key of this state directory, kept in a file of its own that
only its owner can read. A copy of the database alone gives nothing away."""

import os
from pathlib import Path

from preheat.kernel.entropy import Entropy
from preheat.store.errors import StateUnreadable

KEY_BYTES = 32
NONCE_BYTES = 12


class Vault:
    """`directory` None: a key for the life of the process, beside a database in memory."""

    def __init__(self, directory: Path | None, entropy: Entropy) -> None:
        self._path = None if directory is None else directory / "vault.key"
        self._entropy = entropy
        self._key: bytes | None = None

    def seal(self, value: bytes) -> bytes:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = self._entropy.bytes(NONCE_BYTES)
        return nonce + AESGCM(self._master()).encrypt(nonce, value, None)

    def open(self, sealed: bytes) -> bytes:
        """Raises StateUnreadable when the key is not the one it was sealed with."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._master()).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
        except InvalidTag:
            raise StateUnreadable(f"{self._path} is not the key that the stored secrets were sealed with") from None

    def _master(self) -> bytes:
        if self._key is None:
            self._key = self._entropy.bytes(KEY_BYTES) if self._path is None else self._stored(self._path)
        return self._key

    def _stored(self, path: Path) -> bytes:
        if not path.exists():
            temporary = path.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(handle, self._entropy.bytes(KEY_BYTES))
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(temporary, path)
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StateUnreadable(f"{path} does not hold a key of {KEY_BYTES} bytes")
        return key
