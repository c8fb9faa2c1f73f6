"""`aws`: one live server for the whole acceptance run; use names of your own. `fresh_server`: one for one test."""

import pytest

from tests.support.server import LiveServer


@pytest.fixture(scope="session")
def aws(tmp_path_factory):
    server = LiveServer(tmp_path_factory.mktemp("preheat") / "state").start()
    yield server
    assert server.stop() == 0, server.log.read_text()[-4000:]
    assert "defect in" not in server.log.read_text(), server.log.read_text()[-4000:]


@pytest.fixture
def fresh_server(tmp_path):
    servers = []

    def start(*arguments: str) -> LiveServer:
        server = LiveServer(tmp_path / f"state{len(servers)}", *arguments).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()
