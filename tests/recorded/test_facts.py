"""Facts of AWS's behaviour, each with its source and date, checked through boto3 against a live server."""

import json
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.exceptions import ClientError

from tests.support.server import LiveServer

FACTS = json.loads((Path(__file__).parent / "facts.json").read_text())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    live = LiveServer(tmp_path_factory.mktemp("recorded") / "state").start()
    live.queue = live.client("sqs").create_queue(QueueName="recorded")["QueueUrl"]
    yield live
    assert live.stop() == 0


@pytest.mark.parametrize("fact", FACTS, ids=[f"{fact['service']}-{fact['operation']}" for fact in FACTS])
def test_a_refusal_is_as_recorded(server, fact):
    params = {name: server.queue if value == "{queue}" else value for name, value in fact["params"].items()}
    with pytest.raises(ClientError) as caught:
        getattr(server.client(fact["service"]), xform_name(fact["operation"]))(**params)
    response = caught.value.response
    assert response["Error"]["Message"] == fact["message"]
    assert response["Error"]["Code"] in (fact["code"], fact.get("query_code"))
    assert response["ResponseMetadata"]["HTTPStatusCode"] == fact["status"]
