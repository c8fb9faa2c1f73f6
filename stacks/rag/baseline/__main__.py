"""`python -m baseline`: environment variables as WorkerFunction's, and QUESTIONS_QUEUE, WORKERS, GRACE_S."""

import json
import os
import signal
import sys
import threading


def main() -> int:
    count, grace_s = int(os.environ.get("WORKERS", "4")), float(os.environ.get("GRACE_S", "25"))
    most = int(os.environ["BASELINE_WORKERS"])
    if count > most:
        print(f"baseline: WORKERS is {count}, and the stack has places for {most} (BaselineWorkers)", file=sys.stderr)
        return 2
    os.environ.setdefault("TIER", "baseline")
    os.environ.setdefault("AWS_LAMBDA_FUNCTION_NAME", "baseline")
    from handlers import dispatch, wiring, worker

    from baseline.workers import POLL_S, Baseline

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    wiring.answerer()

    def say(line: str) -> None:
        print(line, flush=True)

    baseline = Baseline(
        wiring.client("sqs"), os.environ["QUESTIONS_QUEUE"], count, worker.work, dispatch.live, say
    )
    baseline.start()
    say(json.dumps({"level": "INFO", "message": "ready", "function": "baseline", "workers": count}))
    ended.wait()
    left = baseline.stop(grace_s + POLL_S)
    told = {"message": "ended", "function": "baseline", "finished": baseline.finished, "returned": left}
    say(json.dumps({"level": "WARN" if left else "INFO", **told}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
