"""How each Lambda runtime is started here: Preheat's own Python runtime, or somebody else's program."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from preheat.execution.contract import FunctionSpec
from preheat.execution.workers.interpreters import Interpreters

START = Path(__file__).parent / "runtime" / "start.py"
SOURCE_ROOT = Path(__file__).resolve().parents[3]
NODE_CLIENT = "aws-lambda-ric"
STREAMING_WRAPPER = "/opt/preheat-stream"
STREAMING_PACKAGE = "preheat_stream"
"""The layer that brings this very runtime to AWS (stacks/layers/python-streaming): not needed here."""


@dataclass(frozen=True, slots=True)
class Launch:
    """`argv` None: Preheat's Python runtime, with `path` in front of sys.path. Else a program that speaks the Runtime
    API over TCP. `variables` are added to the environment."""

    argv: tuple[str, ...] | None
    path: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
    interpreter: str | None = None
    """With `argv` None: the path of another Python than Preheat's own."""
    roots: tuple[str, ...] = ()
    """Directories that the program needs beside the system's and the interpreter's."""
    enclosed: bool = False
    """`argv` makes a view of the machine of its own."""


class Unstartable(Exception):
    """This function cannot be initialised here; `error_type` and `body` as a runtime would have posted them."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.body = json.dumps({"errorMessage": message, "errorType": error_type}).encode()


def plan_launch(spec: FunctionSpec, tools: Path | None, interpreters: Interpreters) -> Launch:
    """`tools` is a directory whose node_modules may hold the Node client. Raises Unstartable."""
    if not spec.code.is_dir():
        raise Unstartable("Runtime.InvalidWorkingDir", f"the code directory {spec.code} does not exist")
    runtime = spec.runtime
    if runtime.startswith("python3"):
        chosen = interpreters.choose(runtime)
        path = python_path(spec, chosen.version)
        wrapped = _wrapped(spec, serving(chosen.path))
        if wrapped is None:
            return Launch(None, path, interpreter=chosen.path)
        return Launch(wrapped, path, roots=_around(chosen.path))
    if runtime.startswith("nodejs"):
        launch = _node(spec, tools, interpreters)
        return replace(launch, argv=_wrapped(spec, launch.argv) or launch.argv)
    if runtime.startswith("provided"):
        return Launch((_bootstrap(spec),))
    raise Unstartable(
        "Runtime.InvalidEntrypoint",
        f"Preheat runs python3.x, nodejs and provided runtimes, not {runtime or 'container images'}; "
        "package the function with a bootstrap for provided.al2023 to run it here",
    )


def serving(python: str | None) -> tuple[str, ...]:
    """The command of Preheat's runtime as a program of its own."""
    return (python or sys.executable, str(START), "serve", str(SOURCE_ROOT))


def _around(executable: str | None) -> tuple[str, ...]:
    """The directory above an executable's own `bin`."""
    return () if executable is None else (str(Path(executable).resolve().parent.parent),)


def python_path(spec: FunctionSpec, version: tuple[int, int]) -> tuple[str, ...]:
    """What AWS puts in front of sys.path: the code, then the layers' Python directories, later layers first."""
    found = [str(spec.code)]
    packages = f"lib/python{version[0]}.{version[1]}/site-packages"
    for layer in reversed(spec.layers):
        for folder in (layer / "python" / packages, layer / "python"):
            if folder.is_dir():
                found.append(str(folder))
    return tuple(found)


def carries(spec: FunctionSpec, names: tuple[str, ...]) -> bool:
    """Whether the function or its layers bring a package of one of these names, which then wins over ours."""
    folders = python_path(spec, sys.version_info[:2])
    return any(
        os.path.exists(f"{folder}/{name}") or os.path.exists(f"{folder}/{name}.py")
        for folder in folders
        for name in names
    )


def _wrapped(spec: FunctionSpec, argv: tuple[str, ...]) -> tuple[str, ...] | None:
    """The command below the script that AWS_LAMBDA_EXEC_WRAPPER names, None without one. /var/task and /opt in its
    path mean the code and the layers. One that cannot be run ends the shell that tries, with 126 or 127."""
    wrapper = dict(spec.environment).get("AWS_LAMBDA_EXEC_WRAPPER")
    if not wrapper or (wrapper == STREAMING_WRAPPER and carries(spec, (STREAMING_PACKAGE,))):
        return None
    candidates = [Path(wrapper)]
    if wrapper.startswith("/var/task/"):
        candidates = [spec.code / wrapper.removeprefix("/var/task/")]
    elif wrapper.startswith("/opt/"):
        candidates = [layer / wrapper.removeprefix("/opt/") for layer in reversed(spec.layers)]
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return (str(candidate), *argv)
    found = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    return ("/bin/sh", "-c", 'exec "$0" "$@"', str(found), *argv)


def _bootstrap(spec: FunctionSpec) -> str:
    for folder in (spec.code, *reversed(spec.layers)):
        candidate = folder / "bootstrap"
        if candidate.is_file():
            if not os.access(candidate, os.X_OK):
                raise Unstartable("Runtime.InvalidEntrypoint", f"fork/exec {candidate}: permission denied")
            return str(candidate)
    raise Unstartable(
        "Runtime.InvalidEntrypoint", "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"
    )


def _node(spec: FunctionSpec, tools: Path | None, interpreters: Interpreters) -> Launch:
    chosen = interpreters.choose(spec.runtime)
    if chosen is None or chosen.path is None:
        raise Unstartable("Runtime.InvalidEntrypoint", f"{spec.runtime} needs Node.js: there is no `node` in PATH")
    node = chosen.path
    places = [spec.code, *(layer / "nodejs" for layer in reversed(spec.layers))]
    if tools is not None:
        places.append(tools)
    major = (re.findall(r"\d+", spec.runtime) or [""])[0]
    modules = []
    for layer in reversed(spec.layers):
        modules += [str(layer / "nodejs" / f"node{major}" / "node_modules"), str(layer / "nodejs" / "node_modules")]
    for place in places:
        client = place / "node_modules" / ".bin" / NODE_CLIENT
        if client.exists():
            modules.append(str(place / "node_modules"))
            roots = (*_around(node), *((str(place / "node_modules"),) if place == tools else ()))
            variables = {"NODE_PATH": ":".join(modules)}
            return Launch((node, str(client.resolve()), spec.handler), variables=variables, roots=roots)
    found = shutil.which(NODE_CLIENT)
    if found is None:
        raise Unstartable(
            "Runtime.InvalidEntrypoint",
            f"{spec.runtime} needs AWS's runtime client: run `npm install {NODE_CLIENT}@3` in the function's "
            "directory, or in one that `preheat serve --tools` names (it builds with cmake, g++, autoconf, automake, "
            "libtool)",
        )
    client = os.path.realpath(found)
    roots = (*_around(node), client.partition("/node_modules/")[0] + "/node_modules")
    return Launch((node, client, spec.handler), variables={"NODE_PATH": ":".join(modules)}, roots=roots)
