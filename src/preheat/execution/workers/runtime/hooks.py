"""SnapStart's runtime hooks: where the module `snapshot_restore_py` comes from, and running what it has registered."""

import importlib.util
import os
import sys
from typing import Any

MODULE = "snapshot_restore_py"
BEFORE_SNAPSHOT_ERROR = "Runtime.BeforeSnapshotError"
AFTER_RESTORE_ERROR = "Runtime.AfterRestoreError"
BEFORE_SNAPSHOT_STATUS = 64
AFTER_RESTORE_STATUS = 65


class Finder:
    """The last finder on sys.meta_path: gives the module to functions that do not bring it."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != MODULE:
            return None
        return importlib.util.spec_from_file_location(
            name, os.path.join(os.path.dirname(os.path.abspath(__file__)), "restore_hooks.py")
        )


def before_snapshot() -> None:
    """Last registered, first run; each runs once."""
    registered = _registered("get_before_snapshot")
    while registered:
        function, arguments, keywords = registered.pop()
        function(*arguments, **keywords)


def after_restore() -> None:
    for function, arguments, keywords in list(_registered("get_after_restore")):
        function(*arguments, **keywords)


def _registered(getter: str) -> list:
    module = sys.modules.get(MODULE)
    return [] if module is None else getattr(module, getter)()
