"""The Bedrock runtime without sockets: formats, errors, limits, streams."""

import json

import pytest

from preheat.kernel.errors import AwsError
from preheat.models.registry import Registry
from preheat.services.bedrock_runtime.service import build
from tests.support.inprocess import InProcess

HASHING, ANSWERER = "preheat.hashing-1024", "preheat.extractive-v1"
PROMPT = (
    "<passages>\n[1] Towers\nThe Eiffel Tower was finished in 1889. It is made of iron.\n"
    "[2] Rivers\nThe Seine flows through Paris.\n</passages>\n"
    "<question>When was the Eiffel Tower finished?</question>"
)
QUOTE = "The Eiffel Tower was finished in 1889. [1]"


def make(**models) -> InProcess:
    plain = {ANSWERER: {"options": {"similarity": False}}}
    configuration = {**plain, **models}
    return InProcess(lambda platform: build(platform, Registry(configuration)))


@pytest.fixture
def world():
    return make()


def invoke(world, model, **body):
    answer = world("bedrock-runtime", "InvokeModel", modelId=model, body=json.dumps(body).encode())
    assert answer["contentType"] == "application/json"
    return json.loads(answer["body"])


def converse(world, text=PROMPT, operation="Converse", **params):
    messages = [{"role": "user", "content": [{"text": text}]}]
    return world("bedrock-runtime", operation, modelId=ANSWERER, **{"messages": messages, **params})


def drain(channel):
    items, ends = [], []
    channel.attach(items.append, ends.append)
    assert ends == [None]
    return items


def messages_body(text=PROMPT, **more):
    turns = [{"role": "user", "content": text}]
    return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 500, "messages": turns, **more}


def fails(call, code, status, text=""):
    with pytest.raises(AwsError) as caught:
        call()
    assert (caught.value.code, caught.value.status) == (code, status), caught.value
    assert text in caught.value.message
    return caught.value


def test_titan_body(world):
    answer = invoke(world, HASHING, inputText="warm and cold starts")
    assert len(answer["embedding"]) == 1024
    assert answer["embeddingsByType"] == {"float": answer["embedding"]}
    assert answer["inputTextTokenCount"] == 4
    assert sum(value * value for value in answer["embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_text_of_too_many_tokens_is_refused_before_any_of_them_is_embedded():
    registry = Registry({"local": {"backend": "minilm", "options": {"max_tokens": 16}}})
    world = InProcess(lambda platform: build(platform, registry))
    long = "token " * 20
    body = {"texts": ["short", long], "input_type": "search_document"}
    fails(
        lambda: invoke(world, "local", **body, truncate="NONE"), "ValidationException", 400,
        "Input is too long for requested model. texts[1] has 22 tokens; the most is 16.",
    )  # fmt: skip
    told = "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9002"
    fails(lambda: invoke(world, "local", inputText="word " * 9_000), "ValidationException", 400, told)
    model = registry.find("local").embedder.model
    assert model._runner is None
    assert len(invoke(world, "local", **body, truncate="END")["embeddings"]) == 2
    assert len(invoke(world, "local", texts=["short", "token " * 14], input_type="search_query", truncate="NONE")) == 4
    assert invoke(world, "local", inputText="word " * 8_190)["inputTextTokenCount"] == 8_192
    assert model._runner is not None


def test_titan_dimensions_and_binary(world):
    answer = invoke(world, HASHING, inputText="warm", dimensions=256, embeddingTypes=["binary"])
    assert "embedding" not in answer
    binary = answer["embeddingsByType"]["binary"]
    assert len(binary) == 256 and set(binary) == {0, 1}


def test_cohere_body(world):
    one = invoke(world, HASHING, texts=["a b", "c"], input_type="search_document")
    assert one["response_type"] == "embeddings_floats"
    assert one["texts"] == ["a b", "c"]
    assert [len(vector) for vector in one["embeddings"]] == [1024, 1024]
    two = invoke(world, HASHING, texts=["a b"], input_type="search_query", embedding_types=["float"])
    assert two["embeddings"]["float"][0] == one["embeddings"][0]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "#: required key [inputText] not found"),
        ({"inputText": ""}, "expected minLength: 1, actual: 0"),
        ({"inputText": "x" * 50_001}, "expected maxLength: 50000, actual: 50001"),
        ({"inputText": 5}, "#/inputText: expected type: String, found: Integer"),
        ({"inputText": "x", "dimensions": 300}, "#/dimensions: 300 is not a valid enum value"),
        ({"inputText": "x", "surprise": 1}, "extraneous key [surprise] is not permitted"),
        ({"inputText": "x", "normalize": False}, "normalize: false is not supported"),
        ({"inputText": "x", "embeddingTypes": ["int4"]}, "int4 is not a valid enum value"),
        ({"texts": [], "input_type": "search_query"}, "expected minimum item count: 1"),
        ({"texts": ["x"] * 97, "input_type": "search_query"}, "expected maximum item count: 96, found: 97"),
        ({"texts": ["x"]}, "required key [input_type] not found"),
        ({"texts": ["x"], "input_type": "image"}, "image is not a valid enum value"),
        ({"texts": ["x"], "input_type": "search_query", "truncate": "START"}, "START is not a valid enum value"),
    ],
)
def test_embedding_bodies_refused(world, body, text):
    fails(lambda: invoke(world, HASHING, **body), "ValidationException", 400, text)


def test_body_that_is_not_json(world):
    for body in (b"{", b"[1]", b"", b"\xff\xfe"):
        fails(
            lambda body=body: world("bedrock-runtime", "InvokeModel", modelId=HASHING, body=body),
            "ValidationException",
            400,
            "Malformed input request",
        )


def test_unknown_model_and_wrong_operation(world):
    wrong = {"modelId": "amazon.titan-embed-text-v2:0", "body": b"{}"}
    fails(
        lambda: world("bedrock-runtime", "InvokeModel", **wrong),
        "ValidationException",
        400,
        "The provided model identifier is invalid.",
    )
    fails(lambda: world("bedrock-runtime", "Converse", modelId=HASHING, messages=[]), "ValidationException", 400)
    fails(
        lambda: world("bedrock-runtime", "InvokeModelWithResponseStream", modelId=HASHING, body=b"{}"),
        "ValidationException",
        400,
        "unsupported for streaming",
    )


def test_arn_names_the_model():
    world = make(**{"amazon.titan-embed-text-v2:0": {"backend": "hashing"}})
    arn = "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0"
    assert invoke(world, arn, inputText="x")["embedding"] == invoke(world, HASHING, inputText="x")["embedding"]


def test_anthropic_body(world):
    answer = invoke(world, ANSWERER, **messages_body())
    assert answer["content"] == [{"type": "text", "text": QUOTE}]
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", ANSWERER)
    assert answer["stop_reason"] == "end_turn" and answer["stop_sequence"] is None
    assert answer["usage"]["input_tokens"] > 30 and answer["usage"]["output_tokens"] == 11


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_tokens": None}, "#/max_tokens: expected type: Integer"),
        ({"max_tokens": 0}, "#/max_tokens: 0 is not within"),
        ({"anthropic_version": "x"}, "#/anthropic_version: x is not a valid enum value"),
        ({"temperature": 2}, "#/temperature: 2 is not less or equal to 1"),
        ({"tools": [{}]}, "doesn't support tool use"),
        ({"top_k": 5}, "extraneous key [top_k]"),
        ({"messages": []}, "must start with a user message"),
        ({"messages": [{"role": "user", "content": " "}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "doesn't support image content"),
    ],
)
def test_anthropic_bodies_refused(world, change, text):
    fails(lambda: invoke(world, ANSWERER, **messages_body(**change)), "ValidationException", 400, text)


def test_missing_max_tokens(world):
    body = messages_body()
    del body["max_tokens"]
    fails(lambda: invoke(world, ANSWERER, **body), "ValidationException", 400, "required key [max_tokens] not found")


def test_headers_count_tokens(world):
    replies = world.start(
        "bedrock-runtime", "InvokeModel", modelId=ANSWERER, body=json.dumps(messages_body()).encode()
    )
    headers = replies[0].headers
    assert headers["X-Amzn-Bedrock-Output-Token-Count"] == "11"
    assert int(headers["X-Amzn-Bedrock-Input-Token-Count"]) > 30
    assert headers["X-Amzn-Bedrock-Invocation-Latency"] == "0"


def test_anthropic_stream(world):
    answer = world(
        "bedrock-runtime",
        "InvokeModelWithResponseStream",
        modelId=ANSWERER,
        body=json.dumps(messages_body()).encode(),
    )
    events = [json.loads(item["chunk"]["bytes"]) for item in drain(answer["body"])]
    kinds = [event["type"] for event in events]
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(deltas) == QUOTE and len(deltas) > 5
    metrics = events[-1]["amazon-bedrock-invocationMetrics"]
    assert metrics["outputTokenCount"] == events[-2]["usage"]["output_tokens"] == 11


def test_converse(world):
    answer = converse(world)
    assert answer["output"]["message"] == {"role": "assistant", "content": [{"text": QUOTE}]}
    assert answer["stopReason"] == "end_turn"
    usage = answer["usage"]
    assert usage["inputTokens"] + usage["outputTokens"] == usage["totalTokens"]
    assert answer["metrics"] == {"latencyMs": 0}


def test_converse_stream_order(world):
    events = drain(converse(world, operation="ConverseStream")["stream"])
    names = [next(iter(event)) for event in events]
    assert names[0] == "messageStart"
    assert names[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert set(names[1:-3]) == {"contentBlockDelta"}
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events[1:-3])
    assert text == QUOTE
    assert events[-1]["metadata"]["usage"] == converse(world)["usage"]


def test_max_tokens_act(world):
    answer = converse(world, inferenceConfig={"maxTokens": 4})
    assert answer["output"]["message"]["content"] == [{"text": "The Eiffel Tower was "}]
    assert answer["stopReason"] == "max_tokens"
    assert answer["usage"]["outputTokens"] == 4


def test_stop_sequences_act(world):
    answer = converse(
        world,
        inferenceConfig={"stopSequences": ["finished in", "zzz"]},
        additionalModelResponseFieldPaths=["/stop_sequence", "/nothing"],
    )
    assert answer["output"]["message"]["content"] == [{"text": "The Eiffel Tower was "}]
    assert answer["stopReason"] == "stop_sequence"
    assert answer["additionalModelResponseFields"] == {"stop_sequence": "finished in"}


def test_system_prompt_may_hold_the_passages(world):
    passages, question = PROMPT.split("<question>")
    answer = converse(world, "<question>" + question, system=[{"text": "Be brief."}, {"text": passages}])
    assert answer["output"]["message"]["content"] == [{"text": QUOTE}]


def test_search_results_and_documents_are_passages(world):
    content = [
        {"searchResult": {"source": "s", "title": "Rivers", "content": [{"text": "The Seine flows through Paris."}]}},
        {"document": {"name": "Towers", "format": "txt", "source": {"bytes": b"The tower was finished in 1889."}}},
        {"text": "When was the tower finished?"},
    ]
    answer = converse(world, messages=[{"role": "user", "content": content}])
    assert answer["output"]["message"]["content"] == [{"text": "The tower was finished in 1889. [2]"}]


def user(*content):
    return [{"role": "user", "content": list(content)}]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"messages": []}, "must start with a user message"),
        ({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "must start with a user message"),
        ({"messages": user({"text": "x"}) * 2}, "must alternate"),
        ({"messages": [*user({"text": "x"}), {"role": "assistant", "content": [{"text": "x"}]}]}, "prefill"),
        ({"messages": user({"text": "  "})}, "messages.0.content.0 is blank"),
        ({"messages": user({"image": {"format": "png", "source": {"bytes": b"x"}}})}, "the image content block"),
        ({"messages": user({"toolResult": {"toolUseId": "x", "content": []}})}, "the toolResult content block"),
        ({"messages": user({"document": {"name": "x", "format": "pdf", "source": {"bytes": b"x"}}})}, "pdf documents"),
        ({"toolConfig": {"tools": [{"toolSpec": {"name": "x", "inputSchema": {"json": {}}}}]}}, "tool use"),
        ({"guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"}}, "guardrail identifier"),
        ({"additionalModelRequestFields": {"top_k": 5}}, "field top_k"),
        ({"performanceConfig": {"latency": "optimized"}}, "Latency performance configuration"),
        ({"serviceTier": {"type": "flex"}}, "service tier flex"),
        ({"inferenceConfig": {"maxTokens": 0}}, "inferenceConfig.maxTokens"),
        ({"inferenceConfig": {"temperature": 1.5}}, "inferenceConfig.temperature"),
        ({"inferenceConfig": {"topP": -1.0}}, "inferenceConfig.topP"),
        ({"system": [{"cachePoint": {"type": "default"}}]}, "cachePoint content block at system.0"),
    ],
)
def test_converse_refuses(world, params, text):
    for operation in ("Converse", "ConverseStream"):
        fails(
            lambda operation=operation: converse(world, operation=operation, **params), "ValidationException", 400, text
        )


def test_count_tokens(world):
    spent = converse(world, system=[{"text": "Be brief."}])["usage"]["inputTokens"]
    given = {"messages": user({"text": PROMPT}), "system": [{"text": "Be brief."}]}
    counted = world("bedrock-runtime", "CountTokens", modelId=ANSWERER, input={"converse": given})
    assert counted == {"inputTokens": spent}
    body = json.dumps(messages_body(system="Be brief.")).encode()
    counted = world("bedrock-runtime", "CountTokens", modelId=ANSWERER, input={"invokeModel": {"body": body}})
    assert counted == {"inputTokens": spent}


def test_requests_per_minute():
    world = make(**{HASHING: {"requests_per_minute": 2}})
    invoke(world, HASHING, inputText="x")
    invoke(world, HASHING, inputText="x")
    error = fails(lambda: invoke(world, HASHING, inputText="x"), "ThrottlingException", 429)
    assert error.message == "Too many requests, please wait before trying again."
    world.clock.advance(30)
    invoke(world, HASHING, inputText="x")
    fails(lambda: invoke(world, HASHING, inputText="x"), "ThrottlingException", 429)


def test_tokens_per_minute_reserve_and_settle():
    world = make(**{ANSWERER: {"tokens_per_minute": 1_000, "options": {"similarity": False}}})
    for _ in range(3):
        converse(world, inferenceConfig={"maxTokens": 800})
    error = fails(lambda: converse(world, inferenceConfig={"maxTokens": 950}), "ThrottlingException", 429)
    assert error.message == "Too many tokens, please wait before trying again."


def test_limits_are_per_region():
    world = make(**{HASHING: {"requests_per_minute": 1}})
    invoke(world, HASHING, inputText="x")
    world.scope = world.scope._replace(region="eu-west-1")
    invoke(world, HASHING, inputText="x")
