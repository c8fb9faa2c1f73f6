"""Which Python and Node.js there are on this machine, and which of them runs a function's runtime.

Searched in order: the directories that the user names, PATH, the version managers' folders (pyenv, uv, mise, asdf; nvm,
Volta, fnm, n), the usual system directories. A candidate is asked for its version once, when it is first wanted; what
does not answer is passed over.
"""

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

OLDEST_PYTHON = (3, 9)
OLDEST_FOR_SDK = (3, 10)
NEWEST_MINOR = 15
NODE_MAJORS = range(16, 27)
ASKING_S = 5.0
ASK_PYTHON = "import sys; print(*sys.version_info[:2], sys.executable, sep='\\n')"
ASK_NODE = "console.log(process.versions.node.split('.').slice(0, 2).join('\\n') + '\\n' + process.execPath)"

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`path` None: the Python that runs Preheat. `exact`: of the version that the runtime names."""

    path: str | None
    version: Version
    exact: bool


class Interpreters:
    """`configured`: directories searched first (themselves, their `bin`, and those of the folders in them)."""

    def __init__(self, configured: tuple[Path, ...] = (), environment: Mapping[str, str] | None = None) -> None:
        self._configured = [str(directory) for directory in configured]
        self._environment = os.environ if environment is None else environment
        self._asked: dict[str, tuple[Version, str] | None] = {}
        self._chosen: dict[str, Interpreter | None] = {}

    def choose(self, runtime: str) -> Interpreter | None:
        """What runs `python3.x` or `nodejs<n>.x`: that very version, else the nearest, the newer of two equally near.
        None when there is none at all (only Node.js can be absent)."""
        if runtime not in self._chosen:
            language = self._python if runtime.startswith("python") else self._node
            self._chosen[runtime] = language(runtime)
        return self._chosen[runtime]

    def remark(self, runtime: str) -> str | None:
        """What a deployer should know about running `runtime` here; None when it is the very version."""
        if not runtime.startswith(("python3", "nodejs")):
            return None
        chosen = self.choose(runtime)
        if chosen is None:
            return f"{runtime} needs Node.js, and there is none here: install it or name its directory (--interpreters)"
        if chosen.exact:
            return self._without_sdk(runtime, chosen)
        used = f"python3.{chosen.version[1]}" if runtime.startswith("python") else f"Node.js {chosen.version[0]}"
        return (
            f"{runtime} is not installed here: its functions run on {used}, the nearest found. "
            "Install it, or name the directory that holds it (--interpreters)"
        )

    def _without_sdk(self, runtime: str, chosen: Interpreter) -> str | None:
        """Preheat lends its boto3, which is pure Python, to other versions that are new enough for it."""
        if chosen.path is None or runtime.startswith("nodejs") or chosen.version >= OLDEST_FOR_SDK:
            return None
        if self._has(chosen.path, "boto3"):
            return None
        return (
            f"{runtime}: this boto3 needs Python {OLDEST_FOR_SDK[0]}.{OLDEST_FOR_SDK[1]}, so functions of that runtime "
            f"have none; `{chosen.path} -m pip install boto3` gives them one"
        )

    def _has(self, path: str, package: str) -> bool:
        question = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
        try:
            done = subprocess.run([path, "-I", "-c", question], capture_output=True, timeout=ASKING_S, check=False)
            return done.returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False

    # -- Python -------------------------------------------------------------------------------------------------------

    def _python(self, runtime: str) -> Interpreter:
        wanted = (3, _number(runtime.removeprefix("python3.")))
        own = sys.version_info[:2]
        for version in _nearest(wanted, [(3, minor) for minor in range(OLDEST_PYTHON[1], NEWEST_MINOR + 1)]):
            if version == own:
                return Interpreter(None, own, version == wanted)
            for candidate in self._pythons(f"python{version[0]}.{version[1]}"):
                found = self._ask(candidate, ("-I", "-S", "-c", ASK_PYTHON))
                if found is not None and found[0] == version:
                    return Interpreter(found[1], version, version == wanted)
        return Interpreter(None, own, own == wanted)

    def _pythons(self, name: str) -> Iterator[str]:
        version = name.removeprefix("python")
        home, data = self._home(), self._data()
        yield from self._named(name)
        managed = (
            f"{self._get('PYENV_ROOT', home + '/.pyenv')}/versions/{version}*/bin/{name}",
            f"{self._get('UV_PYTHON_INSTALL_DIR', data + '/uv/python')}/cpython-{version}*/bin/{name}",
            f"{self._get('MISE_DATA_DIR', data + '/mise')}/installs/python/{version}*/bin/{name}",
            f"{self._get('ASDF_DATA_DIR', home + '/.asdf')}/installs/python/{version}*/bin/{name}",
            f"/usr/local/bin/{name}", f"/usr/bin/{name}", f"/opt/homebrew/bin/{name}",
            f"/opt/hostedtoolcache/Python/{version}*/*/bin/{name}",
        )  # fmt: skip
        for pattern in managed:
            yield from _matches(pattern)

    # -- Node.js ------------------------------------------------------------------------------------------------------

    def _node(self, runtime: str) -> Interpreter | None:
        wanted = _number(runtime.removeprefix("nodejs"))
        found: dict[int, tuple[Version, str]] = {}
        for candidate in self._nodes("*"):
            answer = self._ask(candidate, ("-e", ASK_NODE))
            if answer is not None:
                found.setdefault(answer[0][0], answer)
            if answer is not None and answer[0][0] == wanted:
                break
        for major, _ in _nearest((wanted, 0), [(major, 0) for major in (*NODE_MAJORS, *sorted(found))]):
            if major in found:
                version, path = found[major]
                return Interpreter(path, version, major == wanted)
        return None

    def _nodes(self, version: str) -> Iterator[str]:
        home, data = self._home(), self._data()
        yield from self._named("node")
        managed = (
            f"{self._get('NVM_DIR', home + '/.nvm')}/versions/node/v{version}/bin/node",
            f"{self._get('VOLTA_HOME', home + '/.volta')}/tools/image/node/{version}/bin/node",
            f"{self._get('FNM_DIR', data + '/fnm')}/node-versions/v{version}/installation/bin/node",
            f"{home}/.fnm/node-versions/v{version}/installation/bin/node",
            f"{self._get('MISE_DATA_DIR', data + '/mise')}/installs/node/{version}/bin/node",
            f"{self._get('ASDF_DATA_DIR', home + '/.asdf')}/installs/nodejs/{version}/bin/node",
            f"{self._get('N_PREFIX', '/usr/local')}/n/versions/node/{version}/bin/node",
            "/usr/local/bin/node", "/usr/bin/node", "/opt/homebrew/bin/node",
            f"/opt/hostedtoolcache/node/{version}/*/bin/node",
        )  # fmt: skip
        for pattern in managed:
            yield from _matches(pattern)

    # -- the search ---------------------------------------------------------------------------------------------------

    def _named(self, name: str) -> Iterator[str]:
        for directory in self._configured:
            for pattern in (f"{directory}/{name}", f"{directory}/bin/{name}", f"{directory}/*/bin/{name}"):
                yield from _matches(pattern)
        for directory in self._get("PATH", os.defpath).split(os.pathsep):
            found = shutil.which(name, path=directory) if directory and not directory.endswith("/shims") else None
            if found is not None:
                yield found

    def _ask(self, path: str, arguments: tuple[str, ...]) -> tuple[Version, str] | None:
        if path not in self._asked:
            self._asked[path] = self._answer(path, arguments)
        return self._asked[path]

    def _answer(self, path: str, arguments: tuple[str, ...]) -> tuple[Version, str] | None:
        try:
            done = subprocess.run(
                [path, *arguments], capture_output=True, text=True, timeout=ASKING_S, check=True, cwd="/",
                env={"PATH": self._get("PATH", os.defpath), "HOME": self._home()}, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            major, minor, executable = done.stdout.splitlines()[-3:]
            return (int(major), int(minor)), executable
        except (OSError, subprocess.SubprocessError, ValueError):
            return None

    def _home(self) -> str:
        return self._get("HOME", "/nonexistent")

    def _data(self) -> str:
        return self._get("XDG_DATA_HOME", self._home() + "/.local/share")

    def _get(self, name: str, default: str) -> str:
        return self._environment.get(name) or default


def _matches(pattern: str) -> list[str]:
    """Executable files, those of the highest version first."""
    found = [path for path in glob.glob(pattern) if os.access(path, os.X_OK) and os.path.isfile(path)]
    return sorted(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path)], reverse=True)


def _nearest(wanted: Version, known: list[Version]) -> list[Version]:
    def distance(version: Version) -> tuple[int, int]:
        return abs(version[0] - wanted[0]) * 100 + abs(version[1] - wanted[1]), -(version[0] * 100 + version[1])

    return sorted(set(known), key=distance)


def _number(text: str) -> int:
    """The leading digits; 0 without any."""
    return int((re.match(r"\d+", text) or ["0"])[0])
