"""Calls whose model id is mapped to real Bedrock: parameters, answers and errors go through as they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from preheat.models.bedrock_passthrough import BedrockPassthrough
from preheat.services.bedrock_runtime.running import Work
from preheat.services.contract import Outcome, Reply

COUNTS = ("x-amzn-bedrock-input-token-count", "x-amzn-bedrock-output-token-count")
HEADERS = (*COUNTS, "x-amzn-bedrock-invocation-latency")


def forward(
    work: Work, backend: BedrockPassthrough, params: Mapping[str, Any], method: str = "invoke_model"
) -> Outcome:
    """`method` is boto3's. The answer keeps Bedrock's counting headers."""

    def compute() -> dict[str, Any]:
        answer = backend.call(method, dict(params))
        if hasattr(answer.get("body"), "read"):
            answer["body"] = answer["body"].read()
        return answer

    def then(answer: dict[str, Any]) -> Outcome:
        headers = answer.pop("ResponseMetadata", {}).get("HTTPHeaders", {})
        kept = {name.title(): headers[name] for name in HEADERS if name in headers}
        usage = answer.get("usage", {})
        read, written = (int(headers.get(name, 0)) for name in COUNTS)
        work.finish(usage.get("inputTokens", read), usage.get("outputTokens", written))
        return Reply(answer, headers=kept)

    return work.deferred(compute, then, backend.id)


def forward_stream(
    work: Work, backend: BedrockPassthrough, method: str, params: Mapping[str, Any]
) -> Outcome:
    member = "stream" if method == "converse_stream" else "body"
    counted = {"inputTokens": 0, "outputTokens": 0}

    def events(stream: Any) -> Iterator[dict[str, Any]]:
        for event in backend.events(stream):
            usage = event.get("metadata", {}).get("usage", {})
            for name in counted:
                counted[name] += usage.get(name, 0)
            yield event

    def then(answer: dict[str, Any]) -> Outcome:
        answer.pop("ResponseMetadata", None)
        stream = answer[member]

        def used() -> tuple[int, int]:
            return counted["inputTokens"], counted["outputTokens"]

        channel = work.channel(lambda: events(stream), used, member == "body")
        return Reply({**answer, member: channel})

    return work.deferred(lambda: backend.call(method, dict(params)), then, backend.id)
