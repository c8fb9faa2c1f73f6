"""`preheat new`: a stack of the project, copied for a team to edit and own."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from preheat.cli.clients import fail
from preheat.cli.up import project_root

KINDS = ("rag",)
NAME = re.compile(r"[a-z][a-z0-9-]{1,29}")
"""A stack's name that is also good at the start of a bucket's."""
LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "*.pyc", ".aws-sam")
SHARED_LAYERS = re.compile(r"(ContentUri:\s*)\.\./layers/([\w-]+)/")
SAM_CONFIG = """\
version = 0.1

# `sam build && sam deploy` uses this on AWS; `preheat deploy` takes the template's own defaults.
[default.deploy.parameters]
stack_name = "{name}"
resolve_s3 = true
capabilities = "CAPABILITY_IAM CAPABILITY_AUTO_EXPAND"
confirm_changeset = true
parameter_overrides = [
  "EmbeddingModelId=amazon.titan-embed-text-v2:0",
  "EmbeddingDimension=1024",
  "EmbeddingWindow=8192",
  "GenerationModelId=us.anthropic.claude-haiku-4-5-20251001-v1:0",
  "RerankModelId=amazon.rerank-v1:0",
  "OpenUploads=false",
]

# With Cohere's embeddings: sam deploy --config-env cohere
[cohere.deploy.parameters]
stack_name = "{name}"
resolve_s3 = true
capabilities = "CAPABILITY_IAM CAPABILITY_AUTO_EXPAND"
confirm_changeset = true
parameter_overrides = [
  "EmbeddingModelId=cohere.embed-multilingual-v3",
  "EmbeddingDimension=1024",
  "EmbeddingWindow=512",
  "GenerationModelId=us.anthropic.claude-haiku-4-5-20251001-v1:0",
  "RerankModelId=amazon.rerank-v1:0",
  "OpenUploads=false",
]
"""


def new(
    kind: Annotated[str, typer.Argument(help="What to start from: rag.")],
    name: Annotated[str, typer.Argument(help="The new stack's name and directory.")],
    folder: Annotated[Path, typer.Option(help="Where the directory is made.")] = Path("."),
) -> None:
    """Copy a stack to edit: template, functions, page, layers, settings for `sam deploy`."""
    if kind not in KINDS:
        fail(f"there is no stack {kind} to start from; there is: {', '.join(KINDS)}", 2)
    if not NAME.fullmatch(name):
        fail(f"{name!r} cannot name buckets: take 2 to 30 lower-case letters, digits and hyphens, a letter first", 2)
    target = folder / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        fail(f"{target} is there already; choose another name, or another --folder")
    _copy(project_root() / "stacks", kind, target)
    (target / "samconfig.toml").write_text(SAM_CONFIG.format(name=name))
    console = Console()
    console.print(f"{target} is yours to edit.", highlight=False, soft_wrap=True)
    console.print(f"  preheat up {target} --stack {name} --docs FOLDER", highlight=False, soft_wrap=True)
    console.print(f"  cd {target} && sam build && sam deploy", highlight=False, soft_wrap=True)


def _copy(stacks: Path, kind: str, target: Path) -> None:
    """The stack and the layers that it shares with others, which become its own."""
    shutil.copytree(stacks / kind, target, ignore=LEFT_BEHIND, dirs_exist_ok=True)
    template = target / "template.yaml"
    text = template.read_text()
    for layer in {found[2] for found in SHARED_LAYERS.finditer(text)}:
        shutil.copytree(stacks / "layers" / layer, target / "layers" / layer, ignore=LEFT_BEHIND)
    template.write_text(SHARED_LAYERS.sub(r"\1layers/\2/", text))
    readme = target / "README.md"
    text = readme.read_text().replace("../layers/", "layers/").replace("cd stacks/rag\n", "")
    readme.write_text(text.replace("stacks/rag --stack rag", f". --stack {target.name}"))
