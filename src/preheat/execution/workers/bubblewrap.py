"""A function's process below bubblewrap: the view of `runtime/sandbox`, and process ids of its own.

Every function then runs as a program, Preheat's Python runtime too: nothing is forked from a warmed interpreter, so a
cold start takes as long as starting an interpreter. /tmp is the environment's directory on disk, kept over resets; no
single file in it may be larger than its size.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from preheat.execution.workers.contract import WorkerPlan
from preheat.execution.workers.runtime import sandbox
from preheat.execution.workers.runtimes import START, Launch, Unstartable, serving


def wrap(plan: WorkerPlan, launch: Launch) -> Launch:
    """The same launch below `bwrap`. Raises Unstartable when it is not installed."""
    program = shutil.which("bwrap")
    if program is None:
        raise Unstartable("Runtime.InvalidEntrypoint", "--sandbox bwrap: bubblewrap is not installed")
    spec, scratch = plan.spec, str(plan.scratch or "")
    places = {"code": str(spec.code), "layers": [str(layer) for layer in spec.layers], "trust": str(plan.trust or "")}
    command = launch.argv or serving(launch.interpreter)
    python = launch.interpreter or sys.executable
    site = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    prefixes = [str(Path(python).parent.parent), str(Path(python).resolve().parent.parent)]
    roots = sandbox.outermost([*launch.roots, *prefixes, sys.prefix, *site, str(START.parent)])
    words = [program, "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for directory in sandbox.SYSTEM:
        if os.path.islink(directory):
            words += ["--symlink", os.readlink(directory), directory]
        elif os.path.isdir(directory):
            words += ["--ro-bind", directory, directory]
    if scratch and os.path.isfile(sandbox.HOSTS):
        with open(sandbox.HOSTS, "rb") as before, open(f"{scratch}.hosts", "wb") as file:
            file.write(before.read().rstrip(b"\n") + sandbox.NAMES)
        words += ["--ro-bind", f"{scratch}.hosts", sandbox.HOSTS]
    words += ["--proc", "/proc", "--dev", "/dev", *(("--bind", scratch, "/tmp") if scratch else ("--tmpfs", "/tmp"))]
    for root in (*roots, *sandbox.resolver()):
        words += ["--ro-bind", root, root]
    if places["trust"]:
        words += ["--ro-bind", places["trust"], sandbox.RUNTIME]
    words += ["--ro-bind", places["code"], sandbox.TASK, *_layers(places["layers"], scratch), "--chdir", sandbox.TASK]
    moved = [sandbox.inside(word, places, scratch) if word.startswith("/") else word for word in command]
    variables = {}
    for name in sandbox.LISTS:
        if name in plan.variables or name in launch.variables:
            variables[name] = sandbox.inside({**plan.variables, **launch.variables}[name], places, scratch)
    return replace(
        launch,
        argv=(*words, "--", *moved),
        interpreter=None,
        enclosed=True,
        variables={**launch.variables, **variables},
    )


def _layers(layers: list[str], scratch: str) -> list[str]:
    """/opt of one layer, or of links into all of them."""
    if not layers:
        return ["--dir", sandbox.OPT]
    if len(layers) == 1 or not scratch:
        return ["--ro-bind", layers[-1], sandbox.OPT]
    merged = f"{scratch}.opt"
    words = []
    for index, layer in enumerate(layers):
        place = f"/var/layers/{index}"
        os.makedirs(merged, exist_ok=True)
        sandbox.farm(layer, merged, place)
        words += ["--ro-bind", layer, place]
    return [*words, "--ro-bind", merged, sandbox.OPT]
