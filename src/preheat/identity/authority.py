"""The certificate authority of one state directory, and what functions are given to trust it.

    tls/ca.key                 its key and certificate, readable by the owner alone; the one source
    tls/ca.pem                 its certificate, for clients
    tls/runtime/ca-cert.pem    this machine's roots and the authority: /var/runtime of a function
    tls/runtime/preheat-ca.pem the authority alone, for Node.js, which has roots of its own

It may speak for the names in DOMAINS and for loopback addresses only (RFC 5280, 4.2.1.10): whoever trusts it trusts it
with nothing else. Times are the outside world's, because clients compare them with their own clocks.

`python -m preheat.identity.authority FOLDER` makes all of it: a server lets another process do this for its functions
and stays without the library in memory.
"""

import contextlib
import os
import re
import ssl
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preheat.identity.certificates import DAY_S, draft, key_bytes, pem_of, serial_of
from preheat.kernel.clock import SystemClock
from preheat.kernel.entropy import Entropy, SystemEntropy

LIFETIME_S = 10 * 365 * DAY_S
LEAF_S = 90 * DAY_S
RENEW_S = 30 * DAY_S
"""How long before its end a certificate is replaced; the authority, before one that it issues could outlive it."""
DOMAINS = ("localhost", "localdomain", "amazonaws.com", "on.aws", "snowflakecomputing.com")
LOOPBACK = ("127.0.0.0/8", "::1/128")
BASE_NAMES = ("localhost", "*.localhost", "sandbox.localdomain", "127.0.0.1", "::1")
"""In every certificate; a client that names another host of ours gets one that has this name too."""
HOST = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
SOURCE, PUBLIC, RUNTIME = "ca.key", "ca.pem", "runtime"
ROOTS, ALONE = "ca-cert.pem", "preheat-ca.pem"
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)  # fmt: skip


class Authority:
    """`key` and `certificate` are the library's."""

    def __init__(self, key: Any, certificate: Any) -> None:
        self.key = key
        self.certificate = certificate

    @property
    def ends_at(self) -> float:
        """Epoch seconds."""
        return self.certificate.not_valid_after_utc.timestamp()

    def issue(self, names: Sequence[str], public_key: Any, serial: int, now: float) -> bytes:
        """A server's certificate for `names` (host names and addresses) in PEM, valid for LEAF_S."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.x509.oid import ExtendedKeyUsageOID

        own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        issued = (
            draft("Preheat", self.certificate.subject, public_key, serial, now, LEAF_S)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return pem_of(issued)


def obtain(folder: Path, entropy: Entropy, now: float) -> Authority:
    """The authority kept in `folder`; made at the first call, and anew before its end. Several processes may do so at
    once: one wins, the others find its. Raises OSError, and ValueError for a key file that cannot be read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    source = folder / SOURCE
    found = _stored(source)
    if found is None or found.ends_at < now + LEAF_S + RENEW_S:
        temporary = folder / f"{SOURCE}.{entropy.bytes(8).hex()}"
        _write(temporary, _made(entropy, now), 0o600)
        try:
            if found is None:
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, source)
            else:
                os.replace(temporary, source)
        finally:
            temporary.unlink(missing_ok=True)
        found = _stored(source)
        assert found is not None
    _keep(folder / PUBLIC, pem_of(found.certificate), entropy)
    lay_out(folder, entropy)
    return found


def lay_out(folder: Path, entropy: Entropy) -> Path | None:
    """The directory for functions, brought up to date with this machine's roots; None when there is no authority yet.
    Needs no library. Raises OSError."""
    public, runtime = folder / PUBLIC, folder / RUNTIME
    if not public.exists():
        return None
    own = public.read_bytes()
    runtime.mkdir(mode=0o755, exist_ok=True)
    _keep(runtime / ALONE, own, entropy)
    _keep(runtime / ROOTS, _roots() + b"# Preheat's local authority\n" + own, entropy)
    return runtime


def covers(name: str) -> bool:
    """Whether the authority may speak for this host name, in lower case."""
    return any(name == domain or name.endswith("." + domain) for domain in DOMAINS) and HOST.match(name) is not None


def _made(entropy: Entropy, now: float) -> bytes:
    from ipaddress import ip_network

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    public, mark = key.public_key(), entropy.bytes(4).hex()
    permitted: list[Any] = [x509.DNSName(domain) for domain in DOMAINS]
    permitted += [x509.IPAddress(ip_network(network)) for network in LOOPBACK]
    certificate = (
        draft(f"Preheat local authority {mark}", None, public, serial_of(entropy.bytes(16)), now, LIFETIME_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key_bytes(key, pem=True) + pem_of(certificate)


def _stored(source: Path) -> Authority | None:
    if not source.exists():
        return None
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    content = source.read_bytes()
    try:
        return Authority(
            serialization.load_pem_private_key(content, None), x509.load_pem_x509_certificate(content)
        )
    except ValueError as error:
        raise ValueError(f"{source} does not hold a key and its certificate") from error


def _usage(**given: bool) -> Any:
    from cryptography import x509

    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in names})


def _general_name(name: str) -> Any:
    from ipaddress import ip_address

    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _roots() -> bytes:
    """The certificates that programs on this machine trust, and those that boto3 brings, each once."""
    paths = ssl.get_default_verify_paths()
    chosen = next((path for path in (paths.cafile, *SYSTEM_ROOTS) if path and os.path.isfile(path)), None)
    botocore = find_spec("botocore")
    brought = [] if botocore is None or botocore.origin is None else [Path(botocore.origin).with_name("cacert.pem")]
    blocks: dict[bytes, None] = {}
    for path in [*([] if chosen is None else [Path(chosen)]), *brought]:
        if path.is_file():
            for inner in BLOCK.findall(path.read_bytes()):
                blocks[b"".join(inner.split())] = None
    text = []
    for block in blocks:
        lines = [block[start : start + 64] for start in range(0, len(block), 64)]
        text.append(b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""]))
    return b"".join(text)


def _keep(path: Path, content: bytes, entropy: Entropy) -> None:
    """Write `content` to `path`, unless it stands there, so that readers see the old file or the new one."""
    if path.exists() and path.read_bytes() == content:
        return
    temporary = path.with_name(f"{path.name}.{entropy.bytes(8).hex()}")
    _write(temporary, content, 0o644)
    os.replace(temporary, path)


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)


if __name__ == "__main__":
    obtain(Path(sys.argv[1]), SystemEntropy(), SystemClock().peer_now())
