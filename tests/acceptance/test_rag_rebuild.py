"""The index in versions: a new recipe is built beside the index that answers; what a sweep finds is put right."""

import threading

import pytest

from tests.support.rag import deployed
from tests.support.server import wait_for

SENTENCE = "Keeper number {} of the lighthouse wound the clockwork every four hours and wrote down the wind. "
LONG = "# Keepers\n\n" + "".join(SENTENCE.format(number) for number in range(60))
GRACE_S = 900


@pytest.fixture
def rag(tmp_path):
    with deployed(tmp_path) as stack:
        yield stack


def indexes(rag):
    found = rag.server.client("s3vectors").list_indexes(vectorBucketName="rag-vectors-000000000000")["indexes"]
    return {one["indexName"] for one in found}


def upkeep(rag):
    """What the function that looks after the index has logged."""
    logs = rag.server.client("logs")
    groups = [one["logGroupName"] for one in logs.describe_log_groups()["logGroups"]]
    (group,) = [one for one in groups if "MaintainFunction" in one]
    return "\n".join(one["message"] for one in logs.filter_log_events(logGroupName=group)["events"])


def test_a_rebuild_answers_all_the_while_then_switches_and_leaves_nothing_behind(rag):
    rag.put("keepers.md", LONG)
    rag.put("broken.pdf", b"%PDF-1.4 and nothing more", status="failed")
    before = rag.outputs["IndexRecipe"]
    chunks = len(rag.chunks("keepers.md"))
    stop, answers = threading.Event(), []

    def ask():
        while not stop.is_set():
            answers.append(rag.ask("Who wound the clockwork every four hours?"))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        rag.deploy(ChunkTarget="40", ChunkLongest="80", ChunkOverlap="0")
        assert rag.outputs["IndexRecipe"] != before
        rag.put("later.md", "# Later\n\nIt came while the index was being built.\n")
        found = rag.wait_live(target=40)
        assert [one["recipe"]["target"] for one in found["retired"]] == [220] and "building" not in found
    finally:
        stop.set()
        asking.join()
    assert answers and all(one[0][1]["passages"] and one[-1][0] == "done" for one in answers)
    assert len(rag.chunks("keepers.md")) > chunks
    assert len(rag.chunks("later.md")) == 1
    assert indexes(rag) == {f"passages-{before}", f"passages-{rag.outputs['IndexRecipe']}"}
    rag.server.advance(6 * 3600 + GRACE_S)
    wait_for(lambda: indexes(rag) == {f"passages-{rag.outputs['IndexRecipe']}"}, what="the old index being dropped")


def test_a_recipe_that_cannot_be_made_never_takes_over(rag):
    rag.put("keepers.md", LONG)
    before = rag.outputs["IndexRecipe"]
    rag.deploy(EmbeddingModelId="no.such-model")
    wait_for(lambda: "the index is not made" in upkeep(rag), what="the attempt")
    assert "no.such-model" in upkeep(rag) and "switched" not in upkeep(rag)
    assert list(rag.row("keepers.md")["recipes"]) == [before]
    events = rag.ask("Who wound the clockwork every four hours?")
    assert events[0][1]["mode"] == "hybrid" and events[0][1]["passages"]
    rag.deploy()
    assert rag.wait_live(model="preheat.minilm-l6-v2")["retired"][-1]["recipe"]["model"] == "no.such-model"


def test_the_schedule_finds_what_no_notification_told(rag):
    rag.s3.put_bucket_notification_configuration(Bucket=rag.bucket, NotificationConfiguration={})
    rag.s3.put_object(Bucket=rag.bucket, Key="silent.md", Body=b"# Silent\n\nNobody told of this.\n")
    rag.server.advance(6 * 3600)
    wait_for(lambda: rag.row("silent.md").get("status") == "indexed", what="the silent document")
    rag.s3.delete_object(Bucket=rag.bucket, Key="silent.md")
    rag.server.advance(6 * 3600)
    wait_for(lambda: rag.row("silent.md").get("status") == "deleted", what="its end")
    assert rag.chunks("silent.md") == []


def test_labels_decide_who_sees_a_passage_and_follow_their_change(rag):
    body = b"# Salaries\n\nThe keeper earned forty pounds a year.\n"
    rag.s3.put_object(Bucket=rag.bucket, Key="pay.md", Body=body, Metadata={"labels": "payroll, board", "year": "1891"})
    wait_for(lambda: rag.row("pay.md").get("status") == "indexed", what="the document")
    (chunk,) = rag.chunks("pay.md")
    assert (chunk["labels"], chunk["year"]) == (["board", "payroll"], "1891")
    assert rag.ask("What did the keeper earn?")[0][1]["passages"] == []
    rag.s3.copy_object(
        Bucket=rag.bucket, Key="pay.md", CopySource=f"{rag.bucket}/pay.md", MetadataDirective="REPLACE", Metadata={}
    )
    wait_for(lambda: rag.chunks("pay.md")[0]["labels"] == ["public"], what="the new labels")
    assert rag.ask("What did the keeper earn?")[0][1]["passages"]
