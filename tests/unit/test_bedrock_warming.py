"""Models with weights are loaded after a start where they were used before, and nowhere else."""

import json

import pytest

from preheat.models.registry import Registry
from preheat.services.bedrock_runtime.service import build
from tests.support.inprocess import InProcess

DAY = 86_400.0
MINILM, HASHING = "preheat.minilm-l6-v2", "preheat.hashing-1024"


class Started:
    """A machine on `folder`, begun anew at `now`; `jobs` counts what it had done in the background."""

    def __init__(self, folder, now=None, **models):
        self.world = InProcess(directory=folder)
        self.jobs, run = 0, self.world.background.run

        def counted(work, done):
            self.jobs += 1
            run(work, done)

        self.world.background.run = counted
        if now is not None:
            self.world.clock.move_to(now)
        service = build(self.world.platform, Registry(models))
        self.world.machine.add_service(service)
        for loop in service.loops:
            self.world.machine.add_loop(loop)
        self.world.settle()

    def embed(self, model):
        body = json.dumps({"inputText": "queues"}).encode()
        self.world("bedrock-runtime", "InvokeModel", modelId=model, body=body)

    def after(self, seconds):
        """How many jobs the next seconds brought."""
        before = self.jobs
        self.world.advance(seconds)
        return self.jobs - before

    def end(self):
        self.world.db.close()
        assert self.world.defects == []
        return self.world.clock.now()


@pytest.fixture(autouse=True)
def weights():
    if not Registry().minilm().available():
        pytest.skip("the weights are not installed")


def test_what_was_used_is_loaded_once_a_moment_after_the_start(tmp_path):
    first = Started(tmp_path)
    assert first.after(60) == 0
    first.embed(MINILM)
    now = first.end()
    second = Started(tmp_path, now)
    assert [second.after(0.9), second.after(0.2), second.after(3_600)] == [0, 1, 0]
    second.end()


def test_a_model_without_weights_one_long_unused_and_one_that_is_gone_are_not_loaded(tmp_path):
    first = Started(tmp_path, mine={"backend": "minilm"})
    first.embed(HASHING)
    first.embed("mine")
    now = first.end()
    other = Started(tmp_path, now)
    assert other.after(10) == 0
    other.end()
    late = Started(tmp_path, now + 8 * DAY, mine={"backend": "minilm"})
    assert late.after(10) == 0
    late.embed("mine")
    now = late.end()
    again = Started(tmp_path, now + DAY, mine={"backend": "minilm"})
    assert again.after(10) == 1
    again.end()


def test_daily_use_keeps_a_model_warm(tmp_path):
    first = Started(tmp_path)
    for _ in range(10):
        first.embed(MINILM)
        first.after(DAY)
    now = first.end()
    second = Started(tmp_path, now)
    assert second.after(2) == 1
    second.end()
