"""What functions are given to trust the platform over TLS. The authority is made by another process: the library that
does it is a fifth of an idle server's memory."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from preheat.identity.authority import ALONE, PUBLIC, ROOTS, lay_out
from preheat.kernel.entropy import Entropy

MODULE = "preheat.identity.authority"
LONGEST_S = 60.0


class Trust:
    """`folder` is the authority's; `tell` says something to the user."""

    def __init__(self, folder: Path, entropy: Entropy, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._entropy = entropy
        self._tell = tell
        self._maker: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._failed = False

    def expect(self) -> None:
        """There will soon be a function: begin to make what is not there yet."""
        if self._maker is None and not self._failed and not (self._folder / PUBLIC).exists():
            try:
                self._maker = subprocess.Popen(
                    [sys.executable, "-m", MODULE, str(self._folder)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except OSError as error:
                self._give_up(str(error))

    def directory(self) -> Path | None:
        """Where the certificates lie, made and brought up to date; the maker's end is waited for, once in the life of
        a state. None, and the user is told, when it cannot be."""
        if self._directory is None and not self._failed:
            self.expect()
            self.close()
            try:
                self._directory = lay_out(self._folder, self._entropy)
            except OSError as error:
                self._give_up(str(error))
            if self._directory is None:
                self._give_up(f"{self._folder / PUBLIC} could not be made")
        return self._directory

    def variables(self) -> dict[str, str]:
        """The environment variables that programs look for certificates in, for a function's own to replace."""
        directory = self.directory()
        if directory is None:
            return {}
        names = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        return {**dict.fromkeys(names, f"{directory}/{ROOTS}"), "NODE_EXTRA_CA_CERTS": f"{directory}/{ALONE}"}

    def close(self) -> None:
        """The maker, if there is one, is done."""
        if self._maker is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._maker.wait(LONGEST_S)
            self._maker = None

    def _give_up(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._tell(f"functions do not trust this server over TLS: {reason}")
