"""`preheat baseline`: the long-lived workers of a deployed RAG stack, on this machine."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from preheat.cli.clients import REGION, Platform, endpoint_of, fail
from preheat.cli.up import Port, project_root


def baseline(
    stack: Annotated[str, typer.Option(help="The deployed stack.")] = "rag",
    workers: Annotated[int, typer.Option(min=1, max=256, help="Questions that are worked on at once.")] = 4,
    code: Annotated[Path | None, typer.Option(help="The stack's folder, with baseline/ and handlers/.")] = None,
    grace: Annotated[float, typer.Option(help="Seconds that SIGTERM waits for what is in work.")] = 25.0,
    port: Port = None,
) -> None:
    """Take questions from the stack's queue until SIGTERM or Ctrl-C; overflow goes to Lambda."""
    folder = (code or project_root() / "stacks" / "rag").resolve()
    if not (folder / "baseline" / "__main__.py").is_file():
        fail(f"there is no baseline in {folder}; name the stack's folder with --code", 2)
    platform = Platform(endpoint_of(port))
    outputs = platform.outputs(stack)
    if "BurstQueueUrl" not in outputs:
        fail(f"{stack} has no baseline; deploy it with BaselineWorkers={workers}")
    function = platform.client("lambda").get_function_configuration(FunctionName=outputs["WorkerFunctionName"])
    told = {
        **function["Environment"]["Variables"], "QUESTIONS_QUEUE": outputs["QuestionsQueueUrl"], "TIER": "baseline",
        "WORKERS": str(workers), "GRACE_S": str(grace), "AWS_ENDPOINT_URL": platform.endpoint,
    }  # fmt: skip
    usual = {
        "AWS_ACCESS_KEY_ID": "preheat", "AWS_SECRET_ACCESS_KEY": "preheat", "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    os.chdir(folder)
    os.execve(sys.executable, [sys.executable, "-m", "baseline"], {**usual, **os.environ, **told})
