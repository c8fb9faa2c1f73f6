"""Amazon Bedrock: models, guardrails, reranking."""

from preheat.gateway.actions.need import Need, Rule, anything, both, each, given, on, when
from preheat.gateway.actions.storage import bedrock_rules
from preheat.services.contract import Context, Params


def _arn(ctx: Context, identifier: str) -> str:
    return identifier if identifier.startswith("arn:") else ctx.scope.arn("bedrock", f"guardrail/{identifier}")


def _guardrail(ctx: Context, params: Params) -> list[str]:
    return [_arn(ctx, params.get("guardrailIdentifier") or "*")]


def _applied(ctx: Context, params: Params) -> list[Need]:
    """The guardrail that a request to a model names, in Converse's configuration or in a header."""
    config = params.get("guardrailConfig") or params
    identifier = config.get("guardrailIdentifier")
    return [Need("bedrock:ApplyGuardrail", _arn(ctx, identifier), {})] if identifier else []


def runtime_rules() -> dict[str, Rule]:
    models = bedrock_rules()
    return {
        **models,
        **{name: both(models[name], _applied) for name in models if name != "CountTokens"},
        "ApplyGuardrail": on("bedrock:ApplyGuardrail", _guardrail),
    }


def control_rules() -> dict[str, Rule]:
    return {
        **each("bedrock", _guardrail, "GetGuardrail UpdateGuardrail DeleteGuardrail CreateGuardrailVersion"),
        **each("bedrock", given("resourceARN"), "TagResource UntagResource ListTagsForResource"),
        **each("bedrock", anything, "ListFoundationModels"),
        "CreateGuardrail": both(
            on("bedrock:CreateGuardrail", _guardrail), when("tags", on("bedrock:TagResource", _guardrail))
        ),
        "ListGuardrails": on("bedrock:ListGuardrails", _guardrail),
        "GetFoundationModel": on("bedrock:GetFoundationModel", _foundation_model),
    }


def agent_rules() -> dict[str, Rule]:
    return {"Rerank": both(on("bedrock:Rerank", anything), on("bedrock:InvokeModel", _reranker))}


def _foundation_model(ctx: Context, params: Params) -> list[str]:
    return [_model_arn(ctx, params["modelIdentifier"])]


def _reranker(ctx: Context, params: Params) -> list[str]:
    settings = params["rerankingConfiguration"]["bedrockRerankingConfiguration"]
    return [_model_arn(ctx, settings["modelConfiguration"]["modelArn"])]


def _model_arn(ctx: Context, name: str) -> str:
    return name if name.startswith("arn:") else f"arn:aws:bedrock:{ctx.scope.region}::foundation-model/{name}"
