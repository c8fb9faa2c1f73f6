"""The server's side of TLS: which certificate a client gets. Made at the first handshake, on another thread; further
ones, for the host that the client names, at once and kept. Times are the outside world's: `preheat clock advance`
moves no certificate."""

import ssl
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preheat.identity.authority import BASE_NAMES, LEAF_S, RENEW_S, Authority, covers, obtain
from preheat.identity.certificates import key_bytes, serial_of
from preheat.kernel.clock import Clock
from preheat.kernel.entropy import Entropy
from preheat.kernel.stream import Background

KNOWN_NAMES = 128
Ready = Callable[[ssl.SSLContext | None], None]


class Issuer:
    """An authority at work: `base` is the context for clients that name no host, or this one. Raises OSError when
    `scratch` cannot be written."""

    def __init__(self, authority: Authority, scratch: Path, entropy: Entropy, now: float) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._authority = authority
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._scratch = scratch
        self._entropy = entropy
        self.base = self.context(BASE_NAMES, now)

    def context(self, names: tuple[str, ...], now: float) -> ssl.SSLContext:
        """With a new certificate for `names`. Raises OSError."""
        issued = self._authority.issue(names, self._key.public_key(), serial_of(self._entropy.bytes(16)), now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="tls-", suffix=".pem") as file:
            file.write(key_bytes(self._key, pem=True) + issued)
            file.flush()
            context.load_cert_chain(file.name)
        return context


class Certificates:
    """`folder` is the authority's, `scratch` a directory for a moment's files, `tell` says something to the user."""

    def __init__(
        self, folder: Path, scratch: Path, clock: Clock, entropy: Entropy, background: Background,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.tell = tell
        self._folder = folder
        self._scratch = scratch
        self._clock = clock
        self._entropy = entropy
        self._background = background
        self._issuer: Issuer | None = None
        self._renew_at = 0.0
        self._named: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._waiting: list[Ready] = []

    def context(self, then: Ready) -> None:
        """Call `then`, now or later, with the context for a handshake; with None when there can be none."""
        if self._issuer is not None and self._clock.peer_now() < self._renew_at:
            then(self._issuer.base)
            return
        self._waiting.append(then)
        if len(self._waiting) == 1:
            self._background.run(self._prepare, self._prepared)

    def _prepare(self) -> Issuer:
        now = self._clock.peer_now()
        return Issuer(obtain(self._folder, self._entropy, now), self._scratch, self._entropy, now)

    def _prepared(self, made: Any) -> None:
        """When renewing fails, what there was goes on."""
        if isinstance(made, Issuer):
            self._issuer = made
            self._named.clear()
            self._renew_at = self._clock.peer_now() + LEAF_S - RENEW_S
            made.base.sni_callback = self._choose
        else:
            self.tell(f"certificates for TLS cannot be made: {made}")
        base = None if self._issuer is None else self._issuer.base
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(base)

    def _choose(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """The client names the host that it looks for."""
        name = (name or "").lower()
        if self._issuer is None or not covers(name) or name in BASE_NAMES:
            return
        found = self._named.get(name)
        if found is None:
            try:
                found = self._issuer.context((name, *BASE_NAMES), self._clock.peer_now())
            except OSError as error:
                self.tell(f"there is no certificate for hosts that TLS clients name: {error}")
                return
            self._named[name] = found
            if len(self._named) > KNOWN_NAMES:
                self._named.popitem(last=False)
        else:
            self._named.move_to_end(name)
        tls.context = found
