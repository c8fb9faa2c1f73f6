"""Bedrock through boto3: embeddings, answers, both streams, errors."""

import json

import pytest
from botocore.exceptions import ClientError

from preheat.models.minilm import weights_folder

MINILM, HASHING, ANSWERER = "preheat.minilm-l6-v2", "preheat.hashing-1024", "preheat.extractive-v1"
PROMPT = (
    "<passages>\n[1] Queues\nA message may be 1 MiB long. It is kept for 4 days by default.\n"
    "[2] Functions\nA function runs for at most 15 minutes.\n</passages>\n"
    "<question>How many minutes does a function run at most?</question>"
)
QUOTE = "A function runs for at most 15 minutes. [2]"
CONVERSATION = [{"role": "user", "content": [{"text": PROMPT}]}]
BODY = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 300, "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture(scope="module")
def bedrock(aws):
    return aws.client("bedrock-runtime")


def test_embed_one_text(bedrock):
    answer = bedrock.invoke_model(modelId=HASHING, body=json.dumps({"inputText": "warm and cold"}))
    assert answer["contentType"] == "application/json"
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-input-token-count"] == "3"
    document = json.loads(answer["body"].read())
    assert len(document["embedding"]) == 1024 and document["inputTextTokenCount"] == 3


@pytest.mark.skipif(weights_folder() is None, reason="the weights package is not installed")
def test_minilm_understands(bedrock):
    texts = ["How do I reset my password?", "Steps to change a forgotten password", "The weather is sunny."]
    body = json.dumps({"texts": texts, "input_type": "search_document"})
    one, two, three = json.loads(bedrock.invoke_model(modelId=MINILM, body=body)["body"].read())["embeddings"]
    assert len(one) == 384
    assert sum(a * b for a, b in zip(one, two)) > 0.6 > 0.2 > sum(a * b for a, b in zip(one, three))


def test_converse(bedrock):
    answer = bedrock.converse(modelId=ANSWERER, messages=CONVERSATION, system=[{"text": "Be brief."}])
    assert answer["output"]["message"]["content"] == [{"text": QUOTE}]
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + answer["usage"]["outputTokens"]
    assert answer["metrics"]["latencyMs"] >= 0


def test_converse_stream(bedrock):
    events = list(bedrock.converse_stream(modelId=ANSWERER, messages=CONVERSATION)["stream"])
    names = [next(iter(event)) for event in events]
    assert names[0] == "messageStart" and names[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == QUOTE
    assert names.count("contentBlockDelta") > 5


def test_invoke_answerer(bedrock):
    answer = json.loads(bedrock.invoke_model(modelId=ANSWERER, body=json.dumps(BODY))["body"].read())
    assert answer["content"] == [{"type": "text", "text": QUOTE}]


def test_invoke_stream(bedrock):
    stream = bedrock.invoke_model_with_response_stream(modelId=ANSWERER, body=json.dumps(BODY))["body"]
    events = [json.loads(event["chunk"]["bytes"]) for event in stream]
    assert events[0]["type"] == "message_start" and events[-1]["type"] == "message_stop"
    assert "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta") == QUOTE


def test_count_tokens(bedrock):
    counted = bedrock.count_tokens(modelId=ANSWERER, input={"converse": {"messages": CONVERSATION}})["inputTokens"]
    assert counted == bedrock.converse(modelId=ANSWERER, messages=CONVERSATION)["usage"]["inputTokens"]


def test_errors(bedrock):
    with pytest.raises(bedrock.exceptions.ValidationException) as caught:
        bedrock.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=b"{}")
    assert caught.value.response["Error"]["Message"] == "The provided model identifier is invalid."
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    with pytest.raises(bedrock.exceptions.ValidationException, match="required key"):
        bedrock.invoke_model(modelId=HASHING, body=b"{}")
    image = [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": b"x"}}}]}]
    with pytest.raises(ClientError, match="image content block"):
        bedrock.converse_stream(modelId=ANSWERER, messages=image)
