"""TLS between a TCP connection and the `Connection` that speaks HTTP over it: to the one below a protocol, to the one
above a transport. Begun when the first byte of a connection is that of a TLS handshake."""

import asyncio
import contextlib
import ssl
from typing import Any

from preheat.gateway.certificates import Certificates

HANDSHAKE_S = 10.0
READ_BYTES = 16 * 1024
"""One record's content."""
NOT_TRUSTED = ("UNKNOWN_CA", "CERTIFICATE_UNKNOWN", "BAD_CERTIFICATE")
ADVICE = "a TLS client does not trust this server's certificate; `preheat certificate` says what to give it"


class TlsTransport(asyncio.Protocol):
    """`below` is the TCP transport, whose protocol this becomes; `above` the protocol that gets what was encrypted, as
    of `first`, the bytes that have come already. The handshake must be over in `deadline_s` seconds."""

    def __init__(
        self, below: Any, above: Any, first: bytes, certificates: Certificates, deadline_s: float = HANDSHAKE_S
    ) -> None:
        self._below = below
        self._above = above
        self._certificates = certificates
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._open = False
        self._over = False
        self._held = False
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(deadline_s, below.abort)
        self._in.write(first)
        below.set_protocol(self)
        below.pause_reading()
        certificates.context(self._begin)

    def _begin(self, context: ssl.SSLContext | None) -> None:
        if self._over or self._below.is_closing():
            return
        if context is None:
            self.abort()
            return
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._below.resume_reading()
        self._shake()

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()
            self._over = True
            self._below.close()
            if any(word in (error.reason or "") for word in NOT_TRUSTED):
                self._certificates.tell(ADVICE)
            return
        self._deadline.cancel()
        self._open = True
        self._flush()
        self._pump()

    def _pump(self) -> None:
        """Hand up what has come, until the one above has enough of it."""
        tls = self._tls
        while self._open and not self._held and not self._over:
            assert tls is not None
            try:
                data = tls.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError:
                self._flush()
                self.abort()
                return
            if not data:
                self.close()
                return
            self._above.data_received(data)
        self._flush()

    def _flush(self) -> None:
        data = self._out.read()
        if data and not self._below.is_closing():
            self._below.write(data)

    def _shut(self) -> None:
        """Say that nothing more will come (close_notify)."""
        self._over = True
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._flush()

    # -- to the one below -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """After our end of it, what the client still sends is nobody's."""
        if self._over:
            return
        self._in.write(data)
        if self._open:
            self._pump()
        elif self._tls is not None:
            self._shake()

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._deadline.cancel()
        self._above.connection_lost(error)

    # -- to the one above -----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        tls = self._tls
        if self._over or tls is None or not data:
            return
        try:
            sent = tls.write(data)
            if sent < len(data):
                rest = memoryview(data)[sent:]
                while rest:
                    rest = rest[tls.write(rest) :]
        except ssl.SSLError:
            self.abort()
            return
        self._flush()

    def close(self) -> None:
        """What has been written leaves first."""
        if not self._open:
            self.abort()
        else:
            if not self._over:
                self._shut()
            self._below.close()

    def abort(self) -> None:
        self._over = True
        self._below.abort()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._over:
            self._shut()
            self._below.write_eof()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._held = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._held = False
        self._below.resume_reading()
        self._loop.call_soon(self._pump)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)
