"""The index's upkeep: made with the stack, rebuilt when its recipe changes, compared with the bucket.

Events: CloudFormation's for the custom resource `PassagesIndex`; the schedule's; messages of the upkeep queue. A sweep
goes through the bucket a page at a time, then through the documents table, and asks for every document whose row does
not agree with its object; each page is a message, so that a sweep goes on where it stopped. The last message switches
to the index that was being built once nothing is outstanding.
"""

import json
import os
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import ClientError
from ragkit.chunking import Sizes
from ragkit.embed import NO_MODEL, EmbeddingUnavailable
from ragkit.resilience import transient
from ragkit.trace import Trace, begun, current
from ragkit.versions import GRACE_S, NoIndex, Recipe

from handlers import capacity, wiring
from handlers.documents import TRIED, found_of, outstanding, refusal, rows_of

PAGE = 500
LOOKS_AT_ONCE = 8
BATCH = 10
LONGEST_PAUSE_S = 10
REFUSED_PAUSE_S = 900
"""Until an index whose model refuses everything is looked at again."""
SETTLE_S = 15
"""After a switch: what was being indexed meanwhile is looked at once more."""
LONGEST_REASON = 1_000
PHYSICAL_ID = "passages"
CREATION = {"id": "creation"}
CREATING_S, UNSEEN_S, LOOK_S = 20.0, 5.0, 0.2
"""How long a deletion waits for a creation that is under way, and for the first sign of one."""

wiring.prepare("s3", "s3vectors", "dynamodb", "sqs")


def handler(event: dict[str, Any], context: Any) -> Any:
    if "RequestType" in event:
        begun(event["RequestId"]).info("the stack changes the index", request=event["RequestType"])
        return _answer(event, context)
    if "Records" not in event:
        begun(event.get("id")).info("the index is compared with the bucket")
        return _ask({"phase": "objects"})
    failures = []
    for record in event["Records"]:
        trace = begun(record["messageId"])
        try:
            body = json.loads(record["body"])
            trace = begun(body.get("correlation"))
            with trace.step("upkeep", phase=body["sweep"]["phase"]):
                _sweep(body["sweep"])
        except Exception as error:
            trace.error("upkeep failed", messageId=record["messageId"], error=f"{type(error).__name__}: {error}")
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


# -- the custom resource ----------------------------------------------------------------------------------------------


def _answer(event: dict[str, Any], context: Any) -> None:
    """Do what CloudFormation asks, and tell it how that went."""
    status, reason, data = "SUCCESS", "", {}
    try:
        if event["ResourceType"] == capacity.KIND:
            if event["RequestType"] != "Delete":
                capacity.check(event["ResourceProperties"])
        elif event["RequestType"] == "Delete":
            if event["PhysicalResourceId"] != PHYSICAL_ID:
                _await_creation()
            _drop_all()
        elif event["RequestType"] == "Create":
            data = _create(_recipe(event["ResourceProperties"]))
        else:
            data = _begin(_recipe(event["ResourceProperties"]))
    except Exception as error:
        status, reason = "FAILED", f"{type(error).__name__}: {error}"[:LONGEST_REASON]
    told = {
        "Status": status, "Reason": reason, "PhysicalResourceId": event.get("PhysicalResourceId") or PHYSICAL_ID,
        "StackId": event["StackId"], "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"], "Data": data,
    }  # fmt: skip
    request = urllib.request.Request(
        event["ResponseURL"], json.dumps(told).encode(), {"content-type": ""}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()


def _recipe(properties: dict[str, Any]) -> Recipe:
    names = ("ChunkTarget", "ChunkLongest", "ChunkOverlap", "EmbeddingWindow")
    sizes = Sizes(*(int(properties[name]) for name in names))
    store = properties.get("VectorStore", "s3vectors")
    return Recipe(properties["Model"], int(properties["Dimension"]), sizes, store=store)


def _try(recipe: Recipe) -> None:
    """Ask the model once, so that no stack is made whose model cannot be had or gives other vectors. An error that may
    pass is none. Later a recipe that fails does not take over."""
    if recipe.model in ("", NO_MODEL):
        return
    try:
        numbers = len(wiring.embedder(recipe).query(TRIED))
    except EmbeddingUnavailable as error:
        if not transient(error):
            raise
        Trace().warn("the model was not tried", error=str(error))
        return
    if numbers != recipe.dimension:
        raise ValueError(f"{recipe.model} gives vectors of {numbers} numbers; EmbeddingDimension is {recipe.dimension}")


def _create(recipe: Recipe) -> dict[str, str]:
    settings = wiring.table("SETTINGS_TABLE")
    settings.put_item(Item={**CREATION, "ended": False})
    try:
        _try(recipe)
        return _begin(recipe)
    finally:
        settings.put_item(Item={**CREATION, "ended": True})


def _await_creation() -> None:
    """A stack that fails asks for the deletion of what is still being created, whose index would outlive it."""
    settings, begun_at = wiring.table("SETTINGS_TABLE"), time.monotonic()
    while True:
        found = settings.get_item(Key=CREATION, ConsistentRead=True).get("Item")
        waited = time.monotonic() - begun_at
        if (found is not None and found["ended"]) or waited > (UNSEEN_S if found is None else CREATING_S):
            return
        time.sleep(LOOK_S)


def _begin(recipe: Recipe) -> dict[str, str]:
    wiring.store(recipe).prepare()
    versions = wiring.registry().begin(recipe, int(time.time()))
    for retired, _ in versions.retired:
        _ask({"phase": "drop", "recipe": retired.item()}, GRACE_S)
    _ask({"phase": "objects"})
    return {"Recipe": recipe.id, "Index": recipe.index}


def _drop_all() -> None:
    try:
        versions = wiring.registry().fresh()
    except NoIndex:
        return
    for recipe in (*versions.filled, *(one for one, _ in versions.retired)):
        wiring.store(recipe).drop()


# -- sweeps -----------------------------------------------------------------------------------------------------------


def _ask(sweep: dict[str, Any], delay: int = 0) -> None:
    body = json.dumps({"sweep": sweep, "correlation": current()})
    wiring.client("sqs").send_message(QueueUrl=os.environ["UPKEEP_QUEUE"], MessageBody=body, DelaySeconds=delay)


def _sweep(sweep: dict[str, Any]) -> None:
    """One page of a sweep. `missing` counts the documents that it asked for so far, `round` the sweeps before it that
    found some missing."""
    missing, carried = int(sweep.get("missing", 0)), {"round": int(sweep.get("round", 0))}
    if sweep["phase"] == "objects":
        token = {"ContinuationToken": sweep["token"]} if sweep.get("token") else {}
        page = wiring.client("s3").list_objects_v2(Bucket=_bucket(), MaxKeys=PAGE, **token)
        missing += _compare({one["Key"]: one["ETag"] for one in page.get("Contents", [])})
        following = {"phase": "objects", "token": page["NextContinuationToken"]} if page["IsTruncated"] else None
        _ask({**(following or {"phase": "rows"}), **carried, "missing": missing})
    elif sweep["phase"] == "rows":
        start = {"ExclusiveStartKey": {"document": sweep["start"]}} if sweep.get("start") else {}
        page = wiring.table("DOCUMENTS_TABLE").scan(Limit=PAGE, ConsistentRead=True, **start)
        held = [row["document"] for row in page["Items"] if row["status"] != "deleted"]
        with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
            gone = [key for key, there in zip(held, pool.map(_there, held)) if not there]
        _send(gone)
        last = page.get("LastEvaluatedKey")
        following = {"phase": "rows", "start": last["document"]} if last else {"phase": "finish"}
        _ask({**following, **carried, "missing": missing + len(gone)})
    elif sweep["phase"] == "drop":
        _drop(Recipe.read(sweep["recipe"]))
    else:
        _finish(missing, carried["round"])


def _compare(objects: dict[str, str]) -> int:
    """Ask for the documents whose rows do not say that this object is in every index; how many those are."""
    recipes = wiring.registry().fresh().filled
    rows = rows_of(list(objects))
    asked = [key for key, tag in objects.items() if outstanding(rows.get(key), tag, recipes)]
    _send(asked)
    return len(asked)


def _there(key: str) -> bool:
    try:
        wiring.client("s3").head_object(Bucket=_bucket(), Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
            return False
        raise
    return True


def _send(keys: list[str]) -> None:
    """To the ingest queue, in the form of S3's notifications."""
    for at in range(0, len(keys), BATCH):
        entries = [
            {"Id": str(number), "MessageBody": json.dumps(found_of(_bucket(), key))}
            for number, key in enumerate(keys[at : at + BATCH])
        ]
        reply = wiring.client("sqs").send_message_batch(QueueUrl=os.environ["INGEST_QUEUE"], Entries=entries)
        if reply.get("Failed"):
            raise RuntimeError(f"{len(reply['Failed'])} documents could not be asked for: {reply['Failed'][0]}")


def _finish(missing: int, round: int) -> None:
    """Switch when every document is in the index that is being built; look again later when not."""
    registry = wiring.registry()
    versions = registry.fresh()
    if versions.building is None:
        return
    if _waiting():
        _ask({"phase": "finish", "missing": missing, "round": round}, 1)
    elif missing:
        refused = refusal(versions.building)
        if refused is not None:
            Trace().warn("the index is not made", index=versions.building.index, error=str(refused))
        pause = min(LONGEST_PAUSE_S, 1 + round) if refused is None else REFUSED_PAUSE_S
        _ask({"phase": "objects", "round": round + 1}, pause)
    elif registry.switch(versions.building, int(time.time())):
        Trace().info("switched", live=versions.building.index, retired=versions.live.index)
        _ask({"phase": "objects"}, SETTLE_S)
        _ask({"phase": "drop", "recipe": versions.live.item()}, GRACE_S)


def _drop(recipe: Recipe) -> None:
    """Drop a retired index, unless its recipe is wanted again."""
    registry = wiring.registry()
    if recipe in [one for one, _ in registry.fresh().retired]:
        wiring.store(recipe).drop()
        registry.forget(recipe)


def _waiting() -> bool:
    """Whether documents wait to be ingested; those that are at it, or come again later, do not count."""
    names = ["ApproximateNumberOfMessages"]
    found = wiring.client("sqs").get_queue_attributes(QueueUrl=os.environ["INGEST_QUEUE"], AttributeNames=names)
    return found["Attributes"][names[0]] != "0"


def _bucket() -> str:
    return os.environ["DOCUMENTS_BUCKET"]
