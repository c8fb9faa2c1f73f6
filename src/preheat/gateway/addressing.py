"""Addresses of things that have a host name of their own: `<id>.<label>.<region>.<suffix>`, or a path where such names
cannot be resolved."""

import re

from preheat.kernel.http import HttpRequest


class Address:
    """`label` and `suffixes` make the host name, `prefix` begins the path that does without one."""

    def __init__(self, label: str, suffixes: tuple[str, ...], prefix: str) -> None:
        self._mark = f".{label}."
        self._prefix = prefix
        ends = "|".join(map(re.escape, suffixes))
        self._host = re.compile(rf"([a-z0-9]+)\.{re.escape(label)}\.[a-z0-9-]+\.(?:{ends})(?::\d+)?\Z")

    def matches(self, request: HttpRequest) -> bool:
        if request.path.startswith(self._prefix):
            return True
        host = request.headers.get("host", "")
        return self._mark in host and self._host.match(host) is not None

    def split(self, request: HttpRequest) -> tuple[str, str]:
        """(id, the path below it, with its slash) of a request that matches."""
        found = self._host.match(request.headers.get("host", ""))
        if found is not None:
            return found[1], request.path
        name, _, rest = request.path[len(self._prefix) :].partition("/")
        return name, f"/{rest}"

    def domain(self, request: HttpRequest) -> str:
        """What `https://{domain}/...` reaches the thing by, for a client that came as this one did: the host name, or
        host and path where the client does without one."""
        host = request.headers.get("host", "")
        if self._host.match(host) is not None:
            return host
        return f"{host}{self._prefix}{self.split(request)[0]}"
