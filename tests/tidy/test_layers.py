"""Imports go down the layers of docs/HACKING.md, never up, never sideways; there are no cycles."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "preheat"
STACKS = Path(__file__).parents[2] / "stacks"
LAYERS = [
    {"cli"},
    {"simulate"},
    {"app", "settings"},
    {"gateway", "triggers", "template", "console", "snowflake"},
    {"services"},
    {"execution", "models", "identity"},
    {"wire"},
    {"store"},
    {"kernel"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
SHARED_IN_SERVICES = {"constraints", "contract", "deliveries", "findings", "machine", "patterns", "schedules", "table"}
SETTINGS_READERS = {"cli", "simulate", "app"}


def modules():
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = parts[:-1] if parts[-1] == "__init__" else parts
        if name:
            yield path, name


def imported(path):
    """Every preheat module that a file imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("preheat"):
            base = tuple(node.module.split(".")[1:])
            if not base:
                yield from ((node.lineno, (alias.name,)) for alias in node.names if alias.name in RANK)
                continue
            for alias in node.names:
                deeper = SOURCE.joinpath(*base, alias.name)
                is_module = deeper.is_dir() or deeper.with_suffix(".py").exists()
                yield node.lineno, (*base, alias.name) if is_module else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("preheat."):
                    yield node.lineno, tuple(alias.name.split(".")[1:])


def complaint(source, target):
    top, below = source[0], target[0]
    if top == below:
        if top == "services" and len(source) > 1 and len(target) > 1 and source[1] != target[1]:
            if target[1] not in SHARED_IN_SERVICES:
                return "services do not import each other"
            if source[1] in SHARED_IN_SERVICES:
                return None
        return None
    if below == "settings":
        return None if top in SETTINGS_READERS else "settings are read at the edge and handed down"
    if RANK[below] < RANK[top]:
        return "an import upward"
    if RANK[below] == RANK[top]:
        return "an import sideways"
    return None


def test_imports_go_down():
    found = [
        f"{path.relative_to(SOURCE)}:{line} imports {'.'.join(target)}: {why}"
        for path, name in modules()
        for line, target in imported(path)
        if (why := complaint(name, target))
    ]
    assert not found, "\n".join(found)


def test_every_package_has_a_layer():
    tops = {name[0] for _, name in modules()}
    assert tops <= set(RANK), tops - set(RANK)


def test_kernel_uses_the_standard_library_alone():
    allowed = set(__import__("sys").stdlib_module_names) | {"preheat"}
    for path in (SOURCE / "kernel").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert all(name.split(".")[0] in allowed for name in names), (path.name, names)


def test_no_cycles():
    graph = {name: set() for _, name in modules()}
    for path, name in modules():
        tree = ast.parse(path.read_text())
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only or not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if node.module.startswith("preheat."):
                base = tuple(node.module.split(".")[1:])
                for alias in node.names:
                    target = (*base, alias.name) if (*base, alias.name) in graph else base
                    if target in graph and target != name:
                        graph[name].add(target)
    state = {}

    def visit(node, path):
        if state.get(node) == "done":
            return
        if state.get(node) == "open":
            pytest.fail("cycle: " + " -> ".join(".".join(step) for step in [*path[path.index(node) :], node]))
        state[node] = "open"
        for following in graph[node]:
            visit(following, [*path, node])
        state[node] = "done"

    for node in graph:
        visit(node, [])


def test_stacks_know_the_platform_only_through_boto3():
    for path in STACKS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert not any(name.split(".")[0] == "preheat" for name in names), path
