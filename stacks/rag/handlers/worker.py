"""Questions from the queue, answered and written to the jobs table.

A job is queued, working, then done. When an attempt fails it is retrying, after the last one failed, each with the
reason; a failed job that is sent back from the dead-letter queue is worked on again.
"""

import json
import os
from typing import Any

from ragkit.limits import Allowance
from ragkit.trace import Trace

from handlers import outcomes, turns, wiring
from handlers.requests import Question, user_in

LONGEST_REASON = 1_000
SHOWN = ("n", "document", "title", "headings", "source", "text")

wiring.prepare("bedrock-runtime", "s3vectors", "dynamodb", "sqs")


def work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    for record in event["Records"]:
        job: dict[str, Any] = {}
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            job = json.loads(record["body"])
            _work(job, attempt)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            print(json.dumps({"level": "ERROR", "message": "a job failed", "messageId": record["messageId"],
                              "attempt": attempt, "error": reason}))  # fmt: skip
            failures.append({"itemIdentifier": record["messageId"]})
            if "id" in job:
                _tell(job, attempt, reason)
    wiring.METRICS.flush()
    return {"batchItemFailures": failures}


def _tell(job: dict[str, Any], attempt: int, reason: str) -> None:
    """Say in the job why it is tried again, or failed."""
    try:
        if attempt < int(os.environ["MAX_RECEIVES"]):
            outcomes.change(job["id"], {"status": "retrying", "reason": reason, "attempts": attempt})
        else:
            values = {"status": "failed", "reason": reason, "attempts": attempt}
            outcomes.failed(job["id"], values, job.get("correlation", ""))
    except Exception as error:
        Trace(job.get("correlation"), job=job["id"]).error("a job's reason is lost", error=f"{error}", reason=reason)


def _work(job: dict[str, Any], attempt: int) -> None:
    """Answer one job, once: a job that is done stays as it is, one that has expired is not made anew."""
    table = wiring.table("JOBS_TABLE")
    known = table.get_item(Key={"id": job["id"]}, ConsistentRead=True).get("Item")
    if known is None or known["status"] == "done":
        return
    tier = os.environ.get("TIER", "lambda")
    outcomes.change(job["id"], {"status": "working", "attempts": attempt, "tier": tier})
    done: dict[str, Any] = {}
    passages: list[dict[str, Any]] = []
    note = ""
    question = Question(job["question"], job.get("session", ""), job["id"], job.get("where"))
    trace = Trace(job.get("correlation"), job=job["id"])
    user, allowance = user_in(job), Allowance(**job.get("allowance", {}))
    asked = turns.asked(question, user) if question.session else turns.first(question, user)
    push = wiring.push(job.get("connection"))
    for name, data in turns.answer(asked, trace, allowance):
        push.send(name, data)
        if name == "retrieval":
            passages, note = data["passages"], data["note"]
        elif name == "done":
            done = data
    cited = {citation["n"] for citation in done["citations"]}
    shown = [{name: one[name] for name in SHOWN} for one in passages if one["n"] in cited]
    values = {"status": "done", "answer": done["answer"], "citations": shown, "mode": done["mode"], "note": note,
              "timing": done["timing"]}  # fmt: skip
    outcomes.change(job["id"], values, gone=("reason",))
