"""Questions from the queue, answered and written to the jobs table.

A job is queued, working, then done. When an attempt fails it is retrying, after the last one failed, each with the
reason; a failed job that is sent back from the dead-letter queue is worked on again.
"""

import json
import os
import time
from dataclasses import replace
from typing import Any

from ragkit.limits import Admitted
from ragkit.trace import Trace, begun

from handlers import outcomes, turns, wiring
from handlers.requests import Question, user_in

LONGEST_REASON = 1_000
LATE_S = 2
SHOWN = ("n", "document", "title", "headings", "source", "text")

wiring.prepare_answers()
wiring.prepare("sqs")


def work(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failures = []
    wiring.invocation().begin(context)
    for record in event["Records"]:
        job: dict[str, Any] = {}
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        trace = begun(record["messageId"])
        try:
            job = json.loads(record["body"])
            trace = begun(job.get("correlation"), job=job["id"])
            _work(job, attempt, trace, context.get_remaining_time_in_millis())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
            trace.error("a job failed", messageId=record["messageId"], attempt=attempt, error=reason)
            failures.append({"itemIdentifier": record["messageId"]})
            if "id" in job:
                _tell(job, attempt, reason)
        finally:
            wiring.METRICS.flush()
    return {"batchItemFailures": failures}


def _tell(job: dict[str, Any], attempt: int, reason: str) -> None:
    """Say in the job why it is tried again, or failed."""
    try:
        if attempt < int(os.environ["MAX_RECEIVES"]):
            values = {"status": "retrying", "reason": reason, "attempts": attempt}
            outcomes.change(job["id"], values, gone=("partial",))
        else:
            values = {"status": "failed", "reason": reason, "attempts": attempt}
            outcomes.failed(job["id"], values, job.get("correlation", ""))
        wiring.push(job.get("connection"), job["id"]).send(values["status"], {"reason": reason})
    except Exception as error:
        Trace(job=job["id"]).error("a job's reason is lost", error=f"{error}", reason=reason)


def _work(job: dict[str, Any], attempt: int, trace: Trace, left_ms: int) -> None:
    """Answer one job, once: a job that is done stays as it is, one that has expired is not made anew."""
    table = wiring.table("JOBS_TABLE")
    known = table.get_item(Key={"id": job["id"]}, ConsistentRead=True).get("Item")
    if known is None or known["status"] == "done":
        return
    tier, until = os.environ.get("TIER", "lambda"), int(time.time() + left_ms / 1_000) + LATE_S
    values: dict[str, Any] = {"status": "working", "attempts": attempt, "tier": tier, "until": until}
    outcomes.change(job["id"], values, gone=("partial",))
    done: dict[str, Any] = {}
    passages: list[dict[str, Any]] = []
    note = ""
    question = Question(job["question"], job.get("session", ""), job["id"], job.get("where"))
    user, admitted = user_in(job), Admitted(**job.get("admitted", {}))
    if attempt > 1:  # what the question held was given back when its first attempt ended
        admitted = replace(admitted, held=0)
    asked = turns.asked(question, user, waited=True) if question.session else turns.first(question, user)
    push, progress = wiring.push(job.get("connection"), job["id"]), outcomes.Progress(job["id"])
    try:
        for name, data in turns.answer(asked, trace, admitted):
            push.send(name, data)
            if name == "token":
                progress.add(data["text"])
            elif name == "guardrail" and "question" in data:
                outcomes.change(job["id"], {"question": data["question"]})
            elif name == "retrieval":
                passages, note = data["passages"], data["note"]
            elif name == "done":
                done = data
    finally:
        progress.end()
    cited = {citation["n"] for citation in done["citations"]}
    shown = [{name: one[name] for name in SHOWN} for one in passages if one["n"] in cited]
    values = {"status": "done", "answer": done["answer"], "citations": shown, "mode": done["mode"], "note": note,
              "timing": done["timing"], "usage": done["usage"], "cost_usd": done.get("cost_usd"),
              "model": done.get("model", "")}  # fmt: skip
    if done.get("cancelled"):
        values["cancelled"] = True
    outcomes.change(job["id"], values, gone=("reason", "partial", "until"))
