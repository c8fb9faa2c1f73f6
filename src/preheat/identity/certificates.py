"""Certificates: what all that this server makes have in common. The library is loaded at the first one."""

from datetime import UTC, datetime
from typing import Any

DAY_S = 86_400
SKEW_S = DAY_S
"""How far a reader's clock may be behind."""


def draft(subject: str, issuer: Any, public_key: Any, serial: int, now: float, lifetime_s: int) -> Any:
    """A certificate builder for `subject` (its common name), valid from a day before `now` (epoch seconds) to
    `lifetime_s` after it. `issuer` is the name in the issuer's certificate; None: the subject itself."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(int(now) - SKEW_S, UTC))
        .not_valid_after(datetime.fromtimestamp(int(now) + lifetime_s, UTC))
    )


def serial_of(random: bytes) -> int:
    """A positive serial number of at most 20 bytes."""
    return int.from_bytes(random, "big") >> 1 | 1


def key_bytes(key: Any, pem: bool) -> bytes:
    """A private key as PKCS 8, not encrypted; DER unless `pem`."""
    from cryptography.hazmat.primitives import serialization

    encoding = serialization.Encoding.PEM if pem else serialization.Encoding.DER
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem_of(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)
