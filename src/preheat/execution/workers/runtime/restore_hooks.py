"""The module `snapshot_restore_py` of a function that brings none of its own: AWS's interface for SnapStart hooks.

A hook is a function with the arguments it will get; both functions work as decorators too.
"""

__all__ = ["register_after_restore", "register_before_snapshot"]

_before = []
_after = []


def register_before_snapshot(func, *args, **kwargs):
    """Call `func(*args, **kwargs)` before the snapshot is taken; the last one registered goes first."""
    _before.append((func, args, kwargs))
    return func


def register_after_restore(func, *args, **kwargs):
    """Call `func(*args, **kwargs)` in every environment restored from the snapshot, in order of registration."""
    _after.append((func, args, kwargs))
    return func


def get_before_snapshot():
    """The hooks as (function, args, kwargs), in order of registration."""
    return _before


def get_after_restore():
    """The hooks as (function, args, kwargs), in order of registration."""
    return _after
