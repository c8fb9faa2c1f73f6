"""Other people's clients (AWS CLI, SAM CLI, Node SDK, Node's runtime client), installed once into a cache.

The cache is `PREHEAT_CLIENTS`, or a directory under the system's temporary one; every client has a folder named after
what is installed in it, and a folder counts when its `.made` is there. `make test` installs the quick ones itself;
`python -m tests.support.clients` (`make clients`) installs all.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

AWS_CLI = "awscli==1.46.2"
SAM_CLI = "aws-sam-cli==1.170.0"
CFN_LINT = "cfn-lint==1.58.0"
NODE_RUNTIME = "aws-lambda-ric@3.3.0"
"""The last release for Node.js below 22; it compiles its HTTP client when it is installed."""
NODE_SDK = Path(__file__).parent / "node" / "package.json"
INSTALL_S = 600
BIN = Path(sys.executable).parent


class Uninstallable(Exception):
    """Why a client cannot be had here."""


def cache() -> Path:
    named = os.environ.get("PREHEAT_CLIENTS")
    return Path(named) if named else Path(tempfile.gettempdir()) / f"preheat-clients-{os.getuid()}"


def _run(command: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=INSTALL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Uninstallable(f"{command[0]} did not finish: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "rror" in line]
        raise Uninstallable(f"{Path(command[0]).name} failed: {' | '.join(lines[:3]) or done.returncode}")


def _folder(name: str, what: str) -> Path:
    key = hashlib.sha256(f"{what} {sys.version_info[:2]}".encode()).hexdigest()[:12]
    return cache() / f"{name}-{key}"


def _made(folder: Path, install: Callable[[Path], None] | None) -> Path:
    """`folder`, after `install(folder)` where that was not done; `install` None only looks."""
    if (folder / ".made").exists():
        return folder
    if install is None:
        raise Uninstallable(f"{folder.name.rpartition('-')[0]} is not installed: run `make clients`")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / ".made").touch()
    return folder


def _python(requirement: str) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, requirement], folder)

    return install


def _npm(*packages: str) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise Uninstallable("there is no npm in PATH")
        if not packages:
            shutil.copy(NODE_SDK, folder / "package.json")
        _run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), *packages], folder)

    return install


def aws_cli(install: bool = True) -> Path:
    """The `aws` program: the environment's own, or one in the cache. Raises Uninstallable."""
    own = BIN / "aws"
    if own.exists():
        return own
    return _made(_folder("aws-cli", AWS_CLI), _python(AWS_CLI) if install else None) / "bin" / "aws"


def sam_cli(install: bool = False) -> Path:
    """The `sam` program; a minute and a half to install. Raises Uninstallable."""
    return _made(_folder("sam-cli", SAM_CLI), _python(SAM_CLI) if install else None) / "bin" / "sam"


def cfn_lint(install: bool = True) -> Path:
    """The `cfn-lint` program. Raises Uninstallable."""
    return _made(_folder("cfn-lint", CFN_LINT), _python(CFN_LINT) if install else None) / "bin" / "cfn-lint"


def node_sdk(install: bool = True) -> Path:
    """The directory whose node_modules hold the AWS SDK for JavaScript. Raises Uninstallable."""
    if shutil.which("node") is None:
        raise Uninstallable("there is no node in PATH")
    return _made(_folder("node-sdk", NODE_SDK.read_text()), _npm() if install else None)


def node_runtime(install: bool = False) -> Path:
    """The directory whose node_modules hold AWS's runtime client for Node.js; it needs a C++ compiler, cmake, autoconf,
    automake and libtool, and more than a minute. Raises Uninstallable."""
    folder = _made(_folder("node-runtime", NODE_RUNTIME), _npm(NODE_RUNTIME) if install else None)
    if not (folder / "node_modules" / "aws-lambda-ric" / "dist" / "rapid-client.node").exists():
        raise Uninstallable("npm did not build aws-lambda-ric's native part (its install scripts were not run)")
    return folder


def have(find: Callable[[], Path]) -> Path:
    """What `find` finds; skips the test where it cannot be had."""
    try:
        return find()
    except Uninstallable as error:
        pytest.skip(str(error))


def main() -> int:
    """Install everything; the number of clients that could not be."""
    failures = 0
    for find in (aws_cli, cfn_lint, sam_cli, node_sdk, node_runtime):
        try:
            print(f"{find.__name__}: {find(install=True)}")
        except Uninstallable as error:
            failures += 1
            print(f"{find.__name__}: {error}", file=sys.stderr)
    return failures


if __name__ == "__main__":
    sys.exit(main())
