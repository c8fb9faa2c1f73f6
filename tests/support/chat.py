"""A model behind the platform that says what a test tells it to, as slowly as it tells it, and keeps what it got."""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE_S = 90.0


class Chat:
    """`says` are the pieces of every answer (a text stands for its words), `pause_s` apart; before piece number
    `stop_at` it waits until `go` is set, for `patience_s` at most. `status` other than 200 refuses. `seen` are the
    requests, `inside` how many are being answered, `left` how many clients went away meanwhile."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.seen: list[dict[str, Any]] = []
        self.patience_s = PATIENCE_S
        self.go = threading.Event()
        self.inside = self.left = 0
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """As at the start, but for what was seen."""
        self.says: str | Sequence[str] = ""
        self.status = 200
        self.stop_at: int | None = None
        self.pause_s = 0.0
        self.go.set()
        self.go.clear()

    def pieces(self) -> list[str]:
        return re.findall(r"\S+\s*", self.says) if isinstance(self.says, str) else list(self.says)

    def count(self, name: str, change: int) -> None:
        with self.lock:
            setattr(self, name, getattr(self, name) + change)


class _Handler(BaseHTTPRequestHandler):
    """An OpenAI-compatible chat server's one operation."""

    def do_POST(self) -> None:
        chat = self.server.chat
        chat.seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        if chat.status != 200:
            self.send_error(chat.status)
            return
        chat.count("inside", 1)
        try:
            self._answer(chat)
        except OSError:
            chat.count("left", 1)
        finally:
            chat.count("inside", -1)

    def _answer(self, chat: Chat) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        waits = threading.Event()
        for number, piece in enumerate(chat.pieces()):
            if number == chat.stop_at:
                chat.go.wait(chat.patience_s)
            if chat.pause_s:
                waits.wait(chat.pause_s)
            chunk = {"choices": [{"index": 0, "delta": {"content": piece}}]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def chat_model(folder: Path, model: str = "test.chat") -> Iterator[tuple[Chat, Path]]:
    """The model, and the `--models` file under which the platform finds it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.chat = chat = Chat(model)
    options = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "model": "any"}
    models = folder / "models.json"
    models.write_text(json.dumps({model: {"backend": "openai", "options": options}}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield chat, models
    finally:
        chat.go.set()
        server.shutdown()
        thread.join()
        server.server_close()
