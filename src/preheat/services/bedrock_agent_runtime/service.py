"""Agents for Amazon Bedrock Runtime: Rerank, over the rerank models of the platform.

It keeps nothing; the models, their rates and their metrics belong to bedrock-runtime.
"""

from typing import Any, Protocol

from preheat.kernel.errors import AwsError, ValidationError
from preheat.services.bedrock_agent_runtime.domain import read_rerank
from preheat.services.contract import Context, Operation, Outcome, Params, Platform, Reply


class Models(Protocol):
    """What Bedrock's runtime service gives: (index, score) of the best documents."""

    def rerank(self, ctx: Context, identifier: str, request: Any, then: Any) -> Outcome: ...


class BedrockAgentRuntimeService:
    name = "bedrock-agent-runtime"
    schema = ""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {"Rerank": rerank}


def rerank(ctx: Context, params: Params) -> Outcome:
    """All documents, or the `numberOfResults` best, the best first."""
    asked = read_rerank(params)
    runtime: Any = ctx.machine.services.get("bedrock-runtime")
    if runtime is None:
        raise AwsError("DependencyFailedException", "The runtime of Amazon Bedrock is not there.", 424)
    models: Models = runtime
    if params.get("nextToken"):
        raise ValidationError("The provided nextToken is invalid: all results fit one page.")

    def then(ranked: list[tuple[int, float]]) -> Reply:
        return Reply({"results": [{"index": index, "relevanceScore": score} for index, score in ranked]})

    return models.rerank(ctx, asked.model, asked, then)


def build(platform: Platform) -> BedrockAgentRuntimeService:
    return BedrockAgentRuntimeService()


