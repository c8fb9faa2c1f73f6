"""A stand-in for boto3's s3vectors client that calls the service in this process: same methods, same answers, one call
at a time."""

import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
for folder in (ROOT, ROOT / "stacks" / "rag"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from preheat.services.s3vectors.service import build  # noqa: E402
from tests.support.inprocess import InProcess  # noqa: E402


class S3Vectors:
    def __init__(self) -> None:
        self.world = InProcess(build)
        self._lock = threading.Lock()

    def __getattr__(self, name: str):
        operation = "".join(part.capitalize() for part in name.split("_"))

        def call(**params):
            with self._lock:
                return self.world("s3vectors", operation, **params)

        return call
