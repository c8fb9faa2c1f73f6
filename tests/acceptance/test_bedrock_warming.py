"""A server that is started again has the model in memory before anybody asks for it."""

import json
from pathlib import Path

import pytest

from preheat.models.minilm import weights_folder
from tests.support.server import wait_for

MODEL_MB = 60


def memory_mb(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1_024


@pytest.mark.skipif(weights_folder() is None, reason="the weights are not installed")
def test_the_model_is_there_again_after_a_restart(fresh_server):
    server = fresh_server()
    idle = memory_mb(server)
    body = json.dumps({"inputText": "queues"})
    server.client("bedrock-runtime").invoke_model(modelId="preheat.minilm-l6-v2", body=body)
    server.kill()
    server.start()
    wait_for(lambda: memory_mb(server) > idle + MODEL_MB, what="the model being loaded")
    assert server.stop() == 0 and "defect in" not in server.log.read_text()
