"""Has the user's own code directory changed? A scan of names, times, sizes and inodes."""

import os
from pathlib import Path

IGNORED = frozenset(("__pycache__", ".git", ".venv", ".preheat", ".pytest_cache", ".ruff_cache", ".mypy_cache"))
MAX_ENTRIES = 20_000


def scan(directory: Path) -> int:
    """A number that differs when a file was added, removed, replaced or written. At most 20,000 entries are seen."""
    stamps: list[tuple[str, int, int, int]] = []
    folders = [str(directory)]
    while folders and len(stamps) < MAX_ENTRIES:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name in IGNORED or entry.name.endswith(".pyc"):
                        continue
                    if entry.is_dir():
                        folders.append(entry.path)
                        stamps.append((entry.path, 0, 0, 0))
                        continue
                    status = entry.stat()
                    stamps.append((entry.path, status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            continue
    stamps.sort()
    return hash(tuple(stamps))
