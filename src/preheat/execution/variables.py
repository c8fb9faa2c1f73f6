"""The environment variables of a function's process, as AWS sets them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from preheat.execution.contract import FunctionSpec

NO_TRUST: Mapping[str, str] = MappingProxyType({})


class Trusting(Protocol):
    """The certificates that functions trust the platform by."""

    def expect(self) -> None:
        """There will soon be a function."""

    def directory(self) -> Path | None:
        """Where they lie; functions find them at /var/runtime. None: there are none."""

    def variables(self) -> Mapping[str, str]:
        """The environment variables that name them."""


def environment_variables(
    spec: FunctionSpec,
    credentials: Mapping[str, str],
    endpoint: str,
    log_stream: str,
    scratch: str,
    initialization: str = "on-demand",
    trust: Mapping[str, str] = NO_TRUST,
) -> dict[str, str]:
    """Everything but AWS_LAMBDA_RUNTIME_API. What AWS reserves wins over the function's own variables; TMPDIR is the
    environment's private /tmp; LAMBDA_TASK_ROOT is where the code really lies. `initialization`
    is "on-demand", "provisioned-concurrency" or "snap-start", where AWS gives no log names. `trust` names the
    certificates to trust, where the function's own variables do not."""
    code = str(spec.code)
    opt = [str(layer) for layer in reversed(spec.layers)]
    variables = {
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "TZ": ":UTC",
        "SHLVL": "0",
        "PATH": ":".join(["/usr/local/bin", "/usr/bin", "/bin", *(f"{layer}/bin" for layer in opt)]),
        "LD_LIBRARY_PATH": ":".join(
            ["/lib64", "/usr/lib64", code, f"{code}/lib", *(f"{layer}/lib" for layer in opt)]
        ),
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
    }
    python = [f"{layer}/python" for layer in opt]
    if python:
        variables["PYTHONPATH"] = ":".join(python)
    if endpoint:
        variables["AWS_ENDPOINT_URL"] = endpoint
    variables.update(trust)
    variables.update(spec.environment)
    variables.update(credentials)
    variables.update(
        {
            "_HANDLER": spec.handler,
            "AWS_REGION": spec.region,
            "AWS_DEFAULT_REGION": spec.region,
            "AWS_LAMBDA_FUNCTION_NAME": spec.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(spec.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": spec.version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": initialization,
            "AWS_LAMBDA_LOG_GROUP_NAME": log_group(spec),
            "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
            "LAMBDA_TASK_ROOT": code,
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "PWD": code,
        }
    )
    if initialization == "snap-start":
        del variables["AWS_LAMBDA_LOG_GROUP_NAME"], variables["AWS_LAMBDA_LOG_STREAM_NAME"]
    if not spec.runtime.startswith("provided"):
        variables["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{spec.runtime}"
    if scratch:
        variables["TMPDIR"] = scratch
        variables.setdefault("HOME", scratch)
    return variables


def log_group(spec: FunctionSpec) -> str:
    return spec.log_group or f"/aws/lambda/{spec.name}"
