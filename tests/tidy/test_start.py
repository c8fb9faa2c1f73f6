"""What a server that nobody has asked anything has not loaded: it starts in a moment and stays small."""

import json
import subprocess
import sys

LATER = (
    "boto3", "botocore", "cryptography", "duckdb", "multiprocessing", "numpy", "onnxruntime", "pydantic", "pypdf",
    "rich", "samtranslator", "snowballstemmer", "tokenizers", "typer", "usearch", "yaml",
)  # fmt: skip
START = """
import asyncio, json, sys
from pathlib import Path
from preheat.cli.main import plain_options
from preheat.app import Server
from preheat.settings import Settings

async def main():
    assert plain_options(["serve"]) == {}
    server = Server(Settings(state=Path(sys.argv[1]), port=0))
    await server.start()
    print(json.dumps(sorted(sys.modules)))
    await server.stop()

asyncio.run(main())
"""


def test_heavy_libraries_wait_until_they_are_needed(tmp_path):
    done = subprocess.run([sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert "preheat.services.sqs.service" in loaded
    assert [name for name in LATER if name in loaded] == []
