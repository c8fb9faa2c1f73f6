"""Signatures of notifications: an RSA key and its self-signed certificate, made once and kept in the state, the key
sealed. Verified like those of AWS (SHA-1 for SignatureVersion 1, SHA-256 for 2), but with a certificate of this
server's own."""

import base64
from typing import Any, NamedTuple

from preheat.identity.certificates import DAY_S, draft, key_bytes, pem_of, serial_of
from preheat.identity.vault import Vault
from preheat.kernel.entropy import Entropy
from preheat.kernel.stream import Background
from preheat.services.contract import Context, Outcome
from preheat.services.sns.repository import SnsRepository

KEY_BITS = 2_048
YEARS_S = 10 * 365 * DAY_S
CERTIFICATE_PATH = "/_preheat/sns/SimpleNotificationService.pem"
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}


class Pair(NamedTuple):
    """A private key (DER) and its certificate (PEM)."""

    key: bytes
    certificate: str


def string_to_sign(document: dict[str, Any]) -> str:
    """Names and values in turn, one a line; a member that is not there is left out."""
    names = SIGNED[document["Type"]]
    return "".join(f"{name}\n{document[name]}\n" for name in names if document.get(name) is not None)


class Signer:
    def __init__(self, rows: SnsRepository, vault: Vault, entropy: Entropy, background: Background) -> None:
        self._rows = rows
        self._vault = vault
        self._entropy = entropy
        self._background = background
        self._key: Any = None

    def prepare(self, ctx: Context) -> None:
        """Make the key on another thread, if there is none yet: the first notification should not wait for it."""
        if self._key is not None or self._rows.signing_key() is not None:
            return
        serial, now, machine = self._serial(), ctx.now, ctx.machine

        def made(pair: Any) -> None:
            def keep(inner: Context) -> Outcome:
                self._rows.keep_signing_key(self._vault.seal(pair.key), pair.certificate)
                return {}

            if isinstance(pair, Pair):
                machine.perform(keep, lambda reply: None)

        ctx.db.after_commit(lambda: self._background.run(lambda: make_pair(serial, now), made))

    def certificate(self, ctx: Context) -> str:
        """In PEM."""
        return self._stored(ctx)[1]

    def sign(self, ctx: Context, document: dict[str, Any], version: str) -> str:
        """The signature of a notification or confirmation, in base64."""
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding

        if self._key is None:
            sealed, _ = self._stored(ctx)
            self._key = serialization.load_der_private_key(self._vault.open(sealed), None)
        digest = hashes.SHA256() if version == "2" else hashes.SHA1()
        signature = self._key.sign(string_to_sign(document).encode(), padding.PKCS1v15(), digest)
        return base64.b64encode(signature).decode()

    def _stored(self, ctx: Context) -> tuple[bytes, str]:
        found = self._rows.signing_key()
        if found is None:
            pair = make_pair(self._serial(), ctx.now)
            self._rows.keep_signing_key(self._vault.seal(pair.key), pair.certificate)
            found = self._rows.signing_key()
        assert found is not None
        return found

    def forget(self) -> None:
        """To be called when writes are taken back: the key may have been among them."""
        self._key = None

    def _serial(self) -> int:
        return serial_of(self._entropy.bytes(16))


def make_pair(serial: int, now: float) -> Pair:
    """A new key and its certificate, valid for ten years from `now` (epoch seconds)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65_537, KEY_BITS)
    drafted = draft("sns.amazonaws.com (Preheat)", None, key.public_key(), serial, now, YEARS_S)
    return Pair(key_bytes(key, pem=False), pem_of(drafted.sign(key, hashes.SHA256())).decode())
