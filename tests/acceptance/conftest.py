"""`aws`: one live server for the whole acceptance run; use names of your own. `fresh_server`: one for one test.
`driver`: the execution of functions without a server; `make` and `layer` make what it runs."""

import pytest
import uvloop

from tests.support.execution_driver import ExecutionDriver, FunctionMaker
from tests.support.extension_layers import LayerMaker
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


@pytest.fixture
def driver(tmp_path):
    driver = ExecutionDriver(tmp_path / "scratch", endpoint="http://127.0.0.1:4566", loop=uvloop.new_event_loop())
    yield driver
    driver.close()


@pytest.fixture
def make(tmp_path):
    return FunctionMaker(tmp_path)


@pytest.fixture
def layer(tmp_path):
    return LayerMaker(tmp_path)
