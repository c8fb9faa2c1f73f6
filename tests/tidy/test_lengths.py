"""Functions of at most 70 lines; modules of at most 600, or their header says why they are long."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_FUNCTION_LINES = 70
MOST_MODULE_LINES = 600
EXCUSE = "Long because"


def sources():
    for folder in ("src", "stacks", "bench", "tests", "tools"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def test_functions():
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines")
    assert not long, "\n".join(long)


def test_modules():
    long = []
    for path in sources():
        text = path.read_text()
        lines = text.count("\n")
        header = ast.get_docstring(ast.parse(text)) or ""
        if lines > MOST_MODULE_LINES and EXCUSE not in header:
            long.append(f"{path.relative_to(ROOT)}: {lines} lines")
    assert not long, "\n".join(long)
