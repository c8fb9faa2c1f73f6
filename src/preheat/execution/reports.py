"""Lambda's own words: log lines in the text format of 2024 and later, and the documents of sandbox errors."""

import hashlib
import json
import math
import signal

from preheat.execution.contract import FunctionSpec
from preheat.execution.workers.contract import Exit

SIGNAL_NAMES = {
    signal.SIGHUP: "hangup", signal.SIGINT: "interrupt", signal.SIGQUIT: "quit", signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap", signal.SIGABRT: "aborted", signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception", signal.SIGKILL: "killed", signal.SIGSEGV: "segmentation fault",
    signal.SIGPIPE: "broken pipe", signal.SIGALRM: "alarm clock", signal.SIGTERM: "terminated",
    signal.SIGUSR1: "user defined signal 1", signal.SIGUSR2: "user defined signal 2",
    signal.SIGXFSZ: "file size limit exceeded",
}  # fmt: skip


RESTORE_MESSAGES = {
    "SnapStartException": "The afterRestore() runtime hook encountered an error. For more information, check the "
    "Amazon CloudWatch logs.",
    "SnapStartTimeoutException": "Lambda couldn't restore the snapshot within the timeout limit.",
}


SOFT_BREAK = b"\x1e\r"
"""What the Python runtime writes between the lines of one record, and after the last of one that no line break ends."""


def event_text(line: bytes) -> tuple[str, bool]:
    """(text, whether a line break ends it) of a line of output that one has ended. A carriage return within stays."""
    ended = not line.endswith(SOFT_BREAK)
    if SOFT_BREAK in line:
        line = line.removesuffix(SOFT_BREAK).replace(SOFT_BREAK, b"\n")
    return line.rstrip(b"\r").decode("utf-8", "replace"), ended


def last_bytes(log: bytearray, size: int) -> bytes:
    """The end of a log in UTF-8, at most `size` bytes and no half a character."""
    end = bytes(log[-size:])
    start = 0
    while start < len(end) and end[start] & 0xC0 == 0x80:
        start += 1
    return end[start:]


def runtime_version(spec: FunctionSpec) -> tuple[str, str]:
    """The runtime's version and its ARN."""
    runtime = _version_name(spec.runtime)
    return runtime, runtime_arn(spec.runtime, spec.region)


def runtime_arn(runtime: str, region: str) -> str:
    """The ARN of the one version that a runtime has here."""
    return f"arn:aws:lambda:{region}::runtime:{hashlib.sha256(_version_name(runtime).encode()).hexdigest()}"


def _version_name(runtime: str) -> str:
    for language in ("python", "nodejs", "provided"):
        if runtime.startswith(language):
            runtime = f"{language}:{runtime.removeprefix(language).lstrip('.')}.preheat"
    return runtime


def init_start(spec: FunctionSpec) -> str:
    version, arn = runtime_version(spec)
    return f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {arn}"


def init_report(duration_ms: float, phase: str, status: str, error_type: str | None = None) -> str:
    text = f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: {phase}\tStatus: {status}"
    return text if error_type is None else f"{text}\tError Type: {error_type}"


def restore_start(spec: FunctionSpec) -> str:
    return "RESTORE" + init_start(spec).removeprefix("INIT")


def restore_report(duration_ms: float, status: str | None = None, error_type: str | None = None) -> str:
    """`status` is "timeout" or "error" (with `error_type`), None when the environment was restored."""
    fields = [f"RESTORE_REPORT Restore Duration: {duration_ms:.2f} ms"]
    if status is not None:
        fields.append(f"Status: {status}")
    if error_type is not None:
        fields.append(f"Error Type: {error_type}")
    return "\t".join(fields)


def start(request_id: str, version: str) -> str:
    return f"START RequestId: {request_id} Version: {version}"


def end(request_id: str) -> str:
    return f"END RequestId: {request_id}"


def report(
    request_id: str,
    duration_ms: float,
    billed_ms: int,
    memory_mb: int,
    used_mb: int,
    init_ms: float | None,
    status: str | None,
    error_type: str | None,
    trace_id: str | None,
    restore: tuple[float, int] | None = None,
) -> str:
    """The REPORT line. `status` is "timeout" or "error" (with `error_type`), None for anything the runtime answered.
    `restore` is the time of the restore and the part of it that is billed, in ms."""
    fields = [
        f"REPORT RequestId: {request_id}\tDuration: {duration_ms:.2f} ms\tBilled Duration: {billed_ms} ms\t"
        f"Memory Size: {memory_mb} MB\tMax Memory Used: {used_mb} MB"
    ]
    if init_ms is not None:
        fields.append(f"Init Duration: {init_ms:.2f} ms")
    if restore is not None:
        fields += [f"Restore Duration: {restore[0]:.2f} ms", f"Billed Restore Duration: {restore[1]} ms"]
    if status is not None:
        fields.append(f"Status: {status}")
    if error_type is not None:
        fields.append(f"Error Type: {error_type}")
    if trace_id is not None and "Sampled=1" in trace_id:
        parts = dict(part.partition("=")[::2] for part in trace_id.split(";"))
        fields += [f"XRAY TraceId: {parts.get('Root', '')}", f"SegmentId: {parts.get('Parent', '')}", "Sampled: true"]
    return "\t".join(fields) + "\t"


def billed(duration_ms: float, init_ms: float | None) -> int:
    """Whole milliseconds, rounded up; since August 2025 initialisation is billed too."""
    return max(1, math.ceil(round(duration_ms + (init_ms or 0.0), 2)))


def timeout_document(request_id: str, timeout_s: float) -> bytes:
    return _document("Sandbox.Timedout", f"RequestId: {request_id} Error: Task timed out after {timeout_s:.2f} seconds")


def message_of(document: bytes) -> str:
    """The `errorMessage` of an error document; "" when it has none."""
    try:
        found = json.loads(document)["errorMessage"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def restore_document(error: str) -> bytes:
    """Of an environment that could not be restored, in the words of the API's model."""
    return _document(error, RESTORE_MESSAGES[error])


def exit_document(request_id: str, exit: Exit) -> bytes:
    return _document("Runtime.ExitError", f"RequestId: {request_id} Error: {exit_text(exit)}")


def fault_document(request_id: str, error_type: str, text: str) -> bytes:
    """Of an extension's fault."""
    return _document(error_type, f"RequestId: {request_id} Error: {text}")


def ended(exit: Exit) -> str:
    """How an extension's process ended, in AWS's words."""
    if exit.reason:
        return exit.reason
    if exit.signal is not None:
        return f"signal: {SIGNAL_NAMES.get(exit.signal, f'signal {exit.signal}')}"
    return f"exit status {exit.status}" if exit.status else "exit code 0"


def exit_text(exit: Exit) -> str:
    if exit.reason:
        return f"Runtime failed to start: {exit.reason}"
    if exit.signal is not None:
        return f"Runtime exited with error: signal: {SIGNAL_NAMES.get(exit.signal, f'signal {exit.signal}')}"
    if exit.status:
        return f"Runtime exited with error: exit status {exit.status}"
    return "Runtime exited without providing a reason"


def size_document(limit: int) -> bytes:
    return _document(
        "Function.ResponseSizeTooLarge",
        f"Response payload size exceeded maximum allowed payload size ({limit} bytes).",
    )


def _document(error_type: str, message: str) -> bytes:
    return json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":")).encode()
