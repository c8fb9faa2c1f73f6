"""Time, chance and printing are arguments; each banned call has its replacement."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "preheat"
BANNED = {
    "time.time": "ctx.now or the Clock",
    "time.time_ns": "ctx.now or the Clock",
    "time.monotonic": "Clock.monotonic",
    "time.perf_counter": "Clock.monotonic",
    "time.sleep": "Wait, or a Loop's next wake-up",
    "datetime.now": "ctx.now",
    "datetime.utcnow": "ctx.now",
    "datetime.today": "ctx.now",
    "date.today": "ctx.now",
    "uuid.uuid4": "ctx.entropy.uuid",
    "uuid.uuid1": "ctx.entropy.uuid",
    "os.urandom": "ctx.entropy.bytes",
    "secrets.token_hex": "ctx.entropy.token",
    "secrets.token_bytes": "ctx.entropy.bytes",
    "threading.Timer": "a Loop's next wake-up",
    "threading.Lock": "the core has one thread; Background for work elsewhere",
}
BANNED_MODULES = {"random": "ctx.entropy", "logging": "the machine's on_defect, or the logs service"}
EXEMPT = {
    "kernel/clock.py": "the clock itself",
    "kernel/entropy.py": "chance itself",
    "execution/workers/runtime": "runs inside worker processes, with nothing of Preheat's",
    "cli": "the terminal's own time and text",
    "models": "numerical code on background threads measures and locks itself",
}


def exempt(path):
    name = path.relative_to(SOURCE).as_posix()
    return any(name == key or name.startswith(key + "/") for key in EXEMPT)


def dotted(node):
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return f"{base}.{node.attr}" if base else None
    return node.id if isinstance(node, ast.Name) else None


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield node.lineno, dotted(node.func) or ""


def test_no_banned_calls():
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if exempt(path):
            continue
        for line, name in calls(path):
            for banned, instead in BANNED.items():
                if name == banned or name.endswith("." + banned):
                    found.append(f"{path.relative_to(ROOT)}:{line} {name}: use {instead}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in BANNED_MODULES:
                        instead = BANNED_MODULES[alias.name]
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno} import {alias.name}: use {instead}")
    assert not found, "\n".join(found)


def test_print_only_on_the_command_line():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if not exempt(path) and path.name != "machine.py"
        for line, name in calls(path)
        if name == "print"
    ]
    assert not found, found


def test_no_sleep_in_tests():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for line, name in calls(path)
        if name in ("time.sleep", "sleep", "asyncio.sleep")
    ]
    assert not found, found
