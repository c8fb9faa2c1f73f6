"""Two tiers: long-lived workers take the baseline, Lambda what overflows, the models see no more than their limit."""

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.booth import ANSWER, booth
from tests.support.rag import deployed
from tests.support.server import wait_for

BASELINE, BURST, DEPTH = 2, 2, 3
LIMIT = BASELINE + BURST
SETTINGS = {
    "EmbeddingModelId": "none", "GenerationModelId": "test.booth", "BaselineWorkers": str(BASELINE),
    "BurstConcurrency": str(BURST), "BurstDepth": str(DEPTH), "DownstreamLimit": str(LIMIT), "RequestsPerMinute": "0",
}  # fmt: skip
HIDDEN_S = 60


class Workers:
    """`preheat baseline` in a process of its own."""

    def __init__(self, rag, folder, grace=20):
        self.rag = rag
        self.log = folder / "baseline.log"
        command = [str(Path(sys.executable).parent / "preheat"), "baseline", "--workers", str(BASELINE)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--grace", str(grace), "--port", str(rag.server.port)], stdout=log, stderr=log
            )
        wait_for(lambda: '"ready"' in self.log.read_text() or self.process.poll(), what="the workers")
        assert self.process.poll() is None, self.log.read_text()

    def stop(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.process.wait(40)

    def told(self):
        return json.loads(self.log.read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("burst")
    with booth(folder, 0.1) as (model, models), deployed(folder, "--models", str(models), **SETTINGS) as rag:
        rag.put("heron.md", "# Herons\n\nThe grey heron eats eels and frogs.\n")
        rag.booth = model
        yield rag


@pytest.fixture
def workers(stack, tmp_path):
    started = []

    def start(**more):
        started.append(Workers(stack, tmp_path, **more))
        return started[-1]

    yield start
    for one in started:
        one.stop(signal.SIGKILL)
    stack.booth.open.set()


def submit(rag, number):
    question = {"question": f"What does the grey heron eat, for the {number}th time?"}
    status, _, body = rag.http("QuestionsUrl", "POST", "/questions", question)
    assert status == 202, body
    return json.loads(body)["id"]


def job(rag, id):
    return json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{id}")[2])


def finished(rag, ids, deadline_s=180):
    """The jobs, once all of them are done."""
    left, found = set(ids), {}

    def done():
        for id in list(left):
            one = job(rag, id)
            if one["status"] in ("done", "failed"):
                found[id] = one
                left.discard(id)
        return not left

    wait_for(done, deadline_s, what=f"{len(ids)} jobs")
    return [found[id] for id in ids]


def forget_the_baseline(rag):
    """As if no worker of it had been heard of for long."""
    table = rag.server.resource("dynamodb").Table(rag.outputs["SettingsTableName"])
    table.put_item(Item={"id": "baseline", "seen": 0})


def test_a_spike_overflows_to_lambda_and_the_limit_holds(stack, workers):
    running = workers()
    stack.booth.most = 0
    calm = finished(stack, [submit(stack, number) for number in range(2)])
    assert {one["tier"] for one in calm} == {"baseline"}
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: submit(stack, number), range(60)))
    jobs = finished(stack, ids)
    tiers = [one["tier"] for one in jobs]
    assert {one["status"] for one in jobs} == {"done"} and all(one["answer"] == ANSWER for one in jobs)
    assert tiers.count("baseline") >= DEPTH and tiers.count("burst") >= 10, tiers
    assert 2 <= stack.booth.most <= LIMIT
    assert stack.count("QuestionsDeadLettersUrl") == 0

    def calm_again():
        return finished(stack, [submit(stack, 99)])[0]["tier"] == "baseline"

    wait_for(calm_again, what="the baseline getting questions again")
    assert running.stop() == 0 and running.told()["finished"] >= 2 + tiers.count("baseline")


def test_the_burst_tiers_settings_are_in_order(stack):
    client = stack.server.client("lambda")
    name = stack.outputs["WorkerFunctionName"]
    (mapping,) = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    burst = stack.outputs["BurstQueueUrl"].rpartition("/")[2]
    assert mapping["EventSourceArn"].endswith(f":{burst}")
    most = mapping["ScalingConfig"]["MaximumConcurrency"]
    reserved = client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"]
    assert most == BURST < reserved == LIMIT and BASELINE + most <= LIMIT


def test_sigterm_finishes_what_is_in_work(stack, workers):
    running = workers()
    stack.booth.open.clear()
    id = submit(stack, 1)
    wait_for(lambda: stack.booth.inside == 1, what="the question at the model")
    running.process.send_signal(signal.SIGTERM)
    late = threading.Timer(0.3, stack.booth.open.set)
    late.start()
    assert running.stop() == 0
    assert running.told() == {
        "level": "INFO", "message": "ended", "function": "baseline", "finished": 1, "returned": 0
    }  # fmt: skip
    assert job(stack, id)["status"] == "done"


def test_what_is_not_finished_in_time_is_given_back_and_answered_by_the_next(stack, workers):
    running = workers(grace=0)
    stack.booth.open.clear()
    id = submit(stack, 1)
    wait_for(lambda: stack.booth.inside == 1, what="the question at the model")
    assert running.stop() == 0 and running.told()["returned"] == 1
    stack.booth.open.set()
    workers()
    (answered,) = finished(stack, [id])
    assert answered["status"] == "done" and answered["attempts"] == 2


def test_a_killed_worker_gives_its_question_back(stack, workers):
    running = workers()
    stack.booth.open.clear()
    id = submit(stack, 1)
    wait_for(lambda: stack.booth.inside == 1, what="the question at the model")
    running.stop(signal.SIGKILL)
    stack.booth.open.set()
    workers()
    stack.server.advance(HIDDEN_S + 1)
    (answered,) = finished(stack, [id])
    assert answered["status"] == "done" and answered["tier"] == "baseline" and answered["attempts"] == 2


def test_without_living_workers_everything_goes_to_lambda(stack, workers):
    forget_the_baseline(stack)
    client, sqs = stack.server.client("lambda"), stack.sqs
    url = stack.outputs["QuestionsQueueUrl"]
    found = [one["FunctionName"] for one in client.list_functions()["Functions"]]
    name = next(one for one in found if "Dispatch" in one)
    submitter = next(one for one in found if "Submit" in one)
    assert client.get_function_configuration(FunctionName=submitter)["Environment"]["Variables"]["BURST_QUEUE"]
    # Sent to the baseline's queue before anybody knew that its workers were gone. The minute's own run may help.
    table = stack.server.resource("dynamodb").Table(stack.outputs["JobsTableName"])
    left = [f"left-{number}" for number in range(12)]
    for id in left:
        question = "What does the grey heron eat?"
        table.put_item(Item={"id": id, "status": "queued", "question": question})
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"id": id, "question": question}))
    told = json.loads(client.invoke(FunctionName=name)["Payload"].read())
    assert told["moved"] > 0
    assert {one["tier"] for one in finished(stack, left)} == {"burst"}
    # A submitter counts anew after half a second; from then on nothing waits for the dead.
    wait_for(lambda: finished(stack, [submit_somewhere(stack)])[0]["tier"] == "burst", what="the overflow")


def submit_somewhere(rag):
    """A question that is answered wherever it went."""
    id = submit(rag, 0)
    client = rag.server.client("lambda")
    names = [one["FunctionName"] for one in client.list_functions()["Functions"]]
    client.invoke(FunctionName=next(name for name in names if "Dispatch" in name))
    return id
