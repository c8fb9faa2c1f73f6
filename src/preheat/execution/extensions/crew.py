"""The processes around a runtime: external extensions, from their start to their end.

They start first; when all have registered the runtime does. At the end the runtime goes first (SIGTERM, then SIGKILL),
then extensions are told SHUTDOWN and given the rest of the time, then they are killed. Times after AWS: 300 ms for the
runtime and 2 s altogether with external extensions, 500 ms with internal ones alone, nothing without any. A runtime
restored from a snapshot is there before them.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from preheat.execution import reports
from preheat.execution.extensions.api import ExtensionApi
from preheat.execution.extensions.carrier import SocketCarrier
from preheat.execution.extensions.house import Extensions
from preheat.execution.extensions.registry import MAX_EXTENSIONS, Extension
from preheat.execution.extensions.telemetry import Destination
from preheat.execution.workers.bubblewrap import wrap
from preheat.execution.workers.contract import Exit, WorkerPlan
from preheat.execution.workers.housing import Stay
from preheat.execution.workers.output import OutputPipe
from preheat.execution.workers.runtimes import Launch
from preheat.execution.workers.zygote import NurseryLink

SHUTDOWN_S = 2.0
RUNTIME_S = 0.3
INTERNAL_S = 0.5
NOT_STARTED = 126
"""Exit status of a process that could not become the program."""
REASONS = ("spindown", "timeout", "failure")
HIDDEN = (
    "AWS_EXECUTION_ENV", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_ADDRESS", "_AWS_XRAY_DAEMON_PORT", "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT", "_HANDLER",
)  # fmt: skip
"""Variables of the runtime that extensions do not get."""


class Hands(Protocol):
    """What a crew needs of the worker whose runtime it surrounds."""

    name: str
    crowded: Callable[[], bool]
    """Whether output is to wait in its pipes."""

    def begun(self) -> None:
        """The first process exists."""

    def settled(self) -> None:
        """Everybody is ready, an extension last."""

    def at_fault(self, error_type: str) -> None:
        """An extension has ended, or said that it cannot go on."""

    def orphaned(self, exit: Exit) -> None:
        """The runtime has died by itself, extensions are still there."""

    def stop_runtime(self, gently: bool) -> None: ...
    def finished(self, exit: Exit) -> None:
        """All processes have ended."""


class Program:
    """One external extension's process."""

    __slots__ = ("alive", "gate", "key", "name", "output", "path", "pid")

    def __init__(self, name: str, path: str, key: str) -> None:
        self.name = name
        self.path = path
        self.key = key
        self.pid = 0
        self.alive = False
        self.gate = -1
        self.output: OutputPipe | None = None


class Crew:
    """Implements `registry.Watcher` and `telemetry.Rim`. `link` forks the extensions; `restored`: the runtime comes
    first; `stands`: the runtime becomes a snapshot, in which there are no extensions."""

    def __init__(
        self, loop: Any, hands: Hands, plan: WorkerPlan, launch: Launch, stay: Stay, link: NurseryLink,
        restored: bool = False, stands: bool = False,
    ) -> None:  # fmt: skip
        assert plan.extensions is not None
        self.extensions: Extensions = plan.extensions
        self._loop = loop
        self._hands = hands
        self._plan = plan
        self._launch = launch
        self._stay = stay
        self._link = link
        self._restored = restored
        self._stands = stands
        self._programs = [
            Program(name, path, f"{hands.name}.{name}") for name, path in self.extensions.programs.items()
        ]
        self._variables: dict[str, str] = {}
        self._start_runtime: Callable[[], None] | None = None
        self._launched = False
        self._runtime = False
        self._ending = ""
        self._ends_at = 0.0
        self._exit: Exit | None = None
        self._timer: Any = None
        self._closed = False

    def connect(self) -> ExtensionApi:
        """What answers the extensions' requests."""
        return self.extensions.connect(self, self)

    # -- the beginning --------------------------------------------------------------------------------------------

    def start(self, variables: dict[str, str], start_runtime: Callable[[], None]) -> None:
        """Start everything. `variables` are the runtime's; `start_runtime` may raise OSError."""
        self._variables = variables
        self._start_runtime = start_runtime
        if self._programs and not self._restored:
            self._launched = True
            self._loop.call_soon(self._launch_first)
        else:
            self._begin_runtime()

    def _begin_runtime(self) -> None:
        start, self._start_runtime = self._start_runtime, None
        if start is not None:
            self._runtime = True
            start()

    def _launch_first(self) -> None:
        """The others wait until the first is the program, for it brings the environment's view of the machine."""
        if self._ending or self._closed:
            return
        problem = self._problem()
        if problem is not None:
            self._hands.begun()
            self._hands.at_fault(problem)
        elif self._restored:
            for program in self._programs:
                self._launch_program(program)
        else:
            self._launch_program(self._programs[0])

    def _launch_rest(self) -> None:
        if not self._ending:
            self._stay.open()
            for program in self._programs[1:]:
                self._launch_program(program)

    def _problem(self) -> str | None:
        """Why they cannot be started; the extensions say so too."""
        for count, program in enumerate(self._programs):
            member = self.extensions.registry.find(program.name)
            assert member is not None
            if count >= MAX_EXTENSIONS:
                member.error_type, text = "TooManyExtensions", f"Extension limit ({MAX_EXTENSIONS}) reached"
            elif not os.access(program.path, os.X_OK):
                member.error_type = "PermissionDenied"
                text = f"fork/exec /opt/extensions/{program.name}: permission denied"
            else:
                continue
            member.state = "LaunchError"
            self.extensions.blame("Extension.LaunchError", text)
            return "Extension.LaunchError"
        return None

    def _launch_program(self, program: Program) -> None:
        plan = self._plan
        spec = plan.spec
        environment = {name: value for name, value in self._variables.items() if name not in HIDDEN}
        environment["PATH"] = _with_tools(environment["PATH"], spec.runtime, self._launch)
        argv: tuple[str, ...] = (program.path,)
        if self._launch.enclosed:
            wrapped = wrap(replace(plan, variables=environment), Launch(argv, roots=self._launch.roots))
            argv, environment = wrapped.argv or argv, {**environment, **wrapped.variables}
        command = {
            "argv": argv, "path": [str(layer) for layer in spec.layers], "directory": str(spec.code),
            "scratch": str(plan.scratch or ""), "environment": environment, "handler": "", "runtime": spec.runtime,
            "fresh": False, "snapshot": False, "memory_bytes": spec.memory_mb * 1024 * 1024,
            "file_bytes": spec.ephemeral_mb * 1024 * 1024, "view": self._stay.view,
        }  # fmt: skip
        program.gate, gate = os.pipe()
        os.set_blocking(program.gate, False)
        self._loop.add_reader(program.gate, self._opened, program)
        name = program.name
        program.output = OutputPipe(
            self._loop,
            lambda data: self.extensions.output(name, data),
            lambda: self.extensions.silent(name),
            self._hands.crowded,
        )
        program.alive = True
        try:
            descriptors = [gate, program.output.writing]
            self._link.fork(program.key, command, descriptors, lambda message: self._reported(program, message))
        except OSError as error:
            self._reported(program, {"error": str(error)})

    def _opened(self, program: Program) -> None:
        """It has become its program, or has died on the way."""
        if program.pid and program.gate >= 0:
            self._shut_gate(program)
            if program is self._programs[0] and not self._restored:
                self._launch_rest()

    def _reported(self, program: Program, message: dict[str, Any]) -> None:
        if "up" in message:
            program.pid = message["pid"]
            self._stay.begin(program.pid, beside=True)
            self._hands.begun()
        elif program.alive:
            program.alive = False
            self._collect(program)
            self._shut(program)
            self._lost(program, message)

    def _lost(self, program: Program, message: dict[str, Any]) -> None:
        member = self.extensions.registry.find(program.name)
        assert member is not None
        if self._ending:
            member.state = "Exited"
            if not any(program.alive for program in self._programs):
                self._programs_gone()
            return
        exit = _exit_of(message)
        if exit.status == NOT_STARTED and member.state == "Started":
            member.state, member.error_type = "LaunchError", "UnknownError"
            text = f"fork/exec /opt/extensions/{program.name}: exec format error"
            self.extensions.blame("Extension.LaunchError", text)
        else:
            self.extensions.blame("Extension.Crash", reports.ended(exit))
            if member.state not in ("InitError", "ExitError"):
                member.state = "Exited"
        self._accuse()

    def _accuse(self) -> None:
        if not self._ending and not self._closed and self.extensions.fault is not None:
            self._hands.at_fault(self.extensions.fault[0])

    # -- registry.Watcher, telemetry.Rim --------------------------------------------------------------------------

    def registered(self) -> None:
        self._loop.call_soon(self._registered)

    def _registered(self) -> None:
        if self._ending or self._closed or self._start_runtime is None:
            return
        try:
            self._begin_runtime()
        except OSError as error:
            self._runtime, self._ending = False, "failure"
            self._ends_at = self._loop.time() + SHUTDOWN_S
            self._runtime_gone(Exit(reason=str(error)))

    def settled(self) -> None:
        self.extensions.settled()
        self._stand()
        self._hands.settled()

    def failed(self, extension: Extension) -> None:
        said = {"InitError": "failed to initialise", "ExitError": "reported that it exits"}[extension.state]
        text = f"extension {extension.name} {said}: {extension.error_type}"
        self.extensions.blame(f"Extension.{extension.state}", text)
        self._loop.call_soon(self._accuse)

    def later(self, delay_s: float, action: Callable[[], None]) -> Callable[[], None]:
        return self._loop.call_later(delay_s, action).cancel

    def carrier(self, destination: Destination) -> SocketCarrier:
        return SocketCarrier(self._loop, destination)

    # -- while it runs --------------------------------------------------------------------------------------------

    def asks(self) -> bool:
        """The runtime asks for its next event. False: extensions are not ready yet."""
        everybody = self.extensions.runtime_asks()
        if self._restored and self._programs and not self._launched:
            self._launched = True
            self._stay.open()
            self._launch_first()
        if everybody:
            self._stand()
        return everybody

    def _stand(self) -> None:
        """What becomes a snapshot goes on alone."""
        if self._stands and self._programs:
            programs, self._programs = self._programs, []
            for program in programs:
                if program.alive:
                    program.alive = False
                    self._link.kill(program.key)
                    self._shut(program)

    # -- the end --------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> bool:
        """Bring everything to its end. False when there is only the runtime, which is the caller's to kill."""
        if self._ending:
            return True
        self._ending = reason if reason in REASONS else "failure"
        self.extensions.telemetry.flush()
        if not self.extensions.registry.members:
            return False
        external = any(program.alive for program in self._programs)
        self._ends_at = self._loop.time() + (SHUTDOWN_S if external else INTERNAL_S)
        if self._runtime:
            self._hands.stop_runtime(True)
            self._arm(RUNTIME_S if external else INTERNAL_S, lambda: self._hands.stop_runtime(False))
        else:
            self._loop.call_soon(self._runtime_gone, Exit(status=1))
        return True

    def outlives(self, exit: Exit) -> bool:
        """The runtime has died. False: so has everybody else, and the end is complete."""
        self._runtime = False
        if self._closed:
            return False
        if any(program.alive for program in self._programs):
            if not self._ending:
                self._ending = "failure"
                self._ends_at = self._loop.time() + SHUTDOWN_S
                self._hands.orphaned(exit)
            self._runtime_gone(exit)
            return True
        self.close()
        return False

    def _runtime_gone(self, exit: Exit) -> None:
        self._exit = exit
        left = max(0.0, self._ends_at - self._loop.time())
        self._arm(left, self._kill_all)
        self.extensions.telemetry.flush()
        self.extensions.shut_down(self._ending, left)
        for program in self._programs:
            member = self.extensions.registry.find(program.name)
            reported = member is not None and member.state in ("InitError", "ExitError")
            if program.alive and not reported and (member is None or "SHUTDOWN" not in member.events):
                self._link.kill(program.key)
        if not any(program.alive for program in self._programs):
            self._programs_gone()

    def _kill_all(self) -> None:
        for program in self._programs:
            if program.alive:
                self._link.kill(program.key)

    def _programs_gone(self) -> None:
        if self._exit is not None and not self._closed:
            self.close()
            self._hands.finished(self._exit)

    def _arm(self, delay_s: float, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, action)

    def close(self) -> None:
        """Let go of everything."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.extensions.telemetry.close()
        for program in self._programs:
            self._shut(program)

    def _collect(self, program: Program) -> None:
        if program.output is not None:
            program.output.collect()

    def _shut(self, program: Program) -> None:
        self._shut_gate(program)
        self._shut_output(program)

    def _shut_gate(self, program: Program) -> None:
        if program.gate >= 0:
            self._loop.remove_reader(program.gate)
            os.close(program.gate)
            program.gate = -1

    def _shut_output(self, program: Program) -> None:
        if program.output is not None:
            program.output.close()


def _exit_of(message: dict[str, Any]) -> Exit:
    if "status" not in message:
        return Exit(reason=message["error"])
    code = os.waitstatus_to_exitcode(message["status"])
    return Exit(signal=-code) if code < 0 else Exit(status=code)


def _with_tools(path: str, runtime: str, launch: Launch) -> str:
    """PATH with the runtime's own interpreter first, as AWS has it."""
    tool = None
    if runtime.startswith("python"):
        tool = launch.interpreter or sys.executable
    elif runtime.startswith("nodejs"):
        tool = next((word for word in launch.argv or () if os.path.basename(word) == "node"), None)
    return path if tool is None else f"{os.path.dirname(tool)}:{path}"
