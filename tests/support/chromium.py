"""A headless Chromium on a pipe: load a page, evaluate in it."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.server import wait_for

FOUND = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
)  # fmt: skip
READ_FD, WRITE_FD = 3, 4


class Browser:
    """One tab. `errors` are exceptions and console errors of the page."""

    def __init__(self, profile: Path, width: int = 1_280) -> None:
        theirs, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        ends = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (theirs, theirs_out)]
        os.close(theirs)
        os.close(theirs_out)

        def place() -> None:
            os.dup2(ends[0], READ_FD)
            os.dup2(ends[1], WRITE_FD)

        self.process = subprocess.Popen(
            [str(FOUND), *SWITCHES, f"--user-data-dir={profile}", f"--window-size={width},800", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place,
            pass_fds=(READ_FD, WRITE_FD),
        )  # fmt: skip
        for end in ends:
            os.close(end)
        self._kept = b""
        self._number = 0
        self._session = ""
        self.errors: list[str] = []
        try:
            target = wait_for(self._page, what="a page in the browser")
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _page(self) -> str | None:
        targets = self.call("Target.getTargets").get("targetInfos", [])
        return next((one["targetId"] for one in targets if one["type"] == "page"), None)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The command's result; {} when it fails, as `Runtime.evaluate` does while a page is being left."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                return answer.get("result", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            elif answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.errors.append(answer["params"]["entry"]["text"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._kept:
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser ended"
            self._kept += piece
        line, _, self._kept = self._kept.partition(b"\0")
        return json.loads(line)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True).get("result", {}).get("value")

    def wait(self, expression: str) -> Any:
        """The first truthy value of the expression."""
        return wait_for(lambda: self.evaluate(expression), what=expression)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        codes = {"Enter": (13, "\r"), "Escape": (27, ""), "/": (191, "/")}
        code, text = codes[key]
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self._to)
        os.close(self._from)
