"""A model behind the platform that counts how many questions it sees at once."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ANSWER = "Eels and frogs [1]."


class _Chat(BaseHTTPRequestHandler):
    """An OpenAI-compatible chat server; every answer takes `booth.seconds`."""

    def do_POST(self) -> None:
        booth = self.server.booth
        self.rfile.read(int(self.headers["content-length"]))
        booth.enter()
        try:
            booth.open.wait(booth.patience_s)
            booth.pause.wait(booth.seconds)
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            chunk = {"choices": [{"index": 0, "delta": {"content": ANSWER}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
        except OSError:
            booth.broken += 1
        finally:
            booth.leave()

    def log_message(self, *_) -> None:
        pass


class Booth:
    """`inside` now, `most` at once so far, `passed` in all. While `open` is cleared nobody is let out."""

    model = "test.booth"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.patience_s = 60.0
        self.open, self.pause = threading.Event(), threading.Event()
        self.open.set()
        self.inside = self.most = self.passed = self.broken = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def leave(self) -> None:
        with self._lock:
            self.inside -= 1
            self.passed += 1

    def models(self, folder: Path, port: int) -> Path:
        """The `--models` file under which the platform finds this server."""
        options = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "any"}
        path = folder / "models.json"
        path.write_text(json.dumps({self.model: {"backend": "openai", "options": options}}))
        return path


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def booth(folder: Path, seconds: float) -> Iterator[tuple[Booth, Path]]:
    """A booth, and the `--models` file of it."""
    made = Booth(seconds)
    server = _Server(("127.0.0.1", 0), _Chat)
    server.booth = made
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield made, made.models(folder, server.server_port)
    finally:
        made.open.set()
        made.pause.set()
        server.shutdown()
        thread.join()
        server.server_close()
