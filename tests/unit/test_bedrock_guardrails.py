"""Guardrails without sockets: the control plane, permissions, answers and streams behind a guardrail."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.gateway.actions.table import needs
from preheat.kernel.errors import AwsError
from preheat.models.contract import Message
from preheat.models.generation import TextGeneration
from preheat.models.guardrails.contract import (
    Content,
    Grounding,
    Pattern,
    Pii,
    Policy,
    Sides,
    Word,
)
from preheat.models.guardrails.engine import Detectors, Guardrail
from preheat.models.minilm import weights_folder
from preheat.models.registry import Registry
from preheat.services.bedrock.service import build as build_control
from preheat.services.bedrock_runtime.domain import TextRequest
from preheat.services.bedrock_runtime.guarded import GuardedGeneration, Prompt
from preheat.services.bedrock_runtime.guarding import Shield
from preheat.services.bedrock_runtime.service import build as build_runtime
from preheat.services.contract import Context
from preheat.services.machine import ROOT
from tests.support.inprocess import InProcess

WEIGHTS = pytest.mark.skipif(weights_folder() is None, reason="the weights package is not installed")
WORDS = {"wordPolicyConfig": {"wordsConfig": [{"text": "zeppelin"}]}}
BASE = {"blockedInputMessaging": "in", "blockedOutputsMessaging": "out"}


@pytest.fixture
def world():
    return InProcess(build_control, lambda platform: build_runtime(platform, Registry()))


def create(world, name="g", **more):
    return world("bedrock", "CreateGuardrail", **{"name": name, **BASE, **WORDS, **more})


def fails(call, code, text=""):
    with pytest.raises(AwsError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert text in caught.value.message, caught.value
    return caught.value


def apply(world, id, text, version="DRAFT", source="INPUT", **more):
    return world(
        "bedrock-runtime", "ApplyGuardrail", guardrailIdentifier=id, guardrailVersion=version, source=source,
        content=[{"text": {"text": text}}], **more,
    )  # fmt: skip


# -- the control plane -------------------------------------------------------------------------------------------------


def test_create_get_list_delete(world):
    made = create(world, description="d", tags=[{"key": "team", "value": "a"}], kmsKeyId="0" * 36)
    assert re.fullmatch("[a-z0-9]{12}", made["guardrailId"]) and made["version"] == "DRAFT"
    shown = world("bedrock", "GetGuardrail", guardrailIdentifier=made["guardrailArn"])
    assert shown["wordPolicy"] == {"words": [{"text": "zeppelin"}]} and shown["status"] == "READY"
    assert shown["kmsKeyArn"] == f"arn:aws:kms:us-east-1:000000000000:key/{'0' * 36}"
    create(world, "h")
    page = world("bedrock", "ListGuardrails", maxResults=1)
    rest = world("bedrock", "ListGuardrails", maxResults=1, nextToken=page["nextToken"])
    assert {one["name"] for one in (*page["guardrails"], *rest["guardrails"])} == {"g", "h"}
    assert "nextToken" not in rest
    world("bedrock", "DeleteGuardrail", guardrailIdentifier=made["guardrailId"])
    fails(
        lambda: world("bedrock", "GetGuardrail", guardrailIdentifier=made["guardrailId"]), "ResourceNotFoundException"
    )
    fails(lambda: apply(world, made["guardrailId"], "x"), "ResourceNotFoundException")


def test_a_version_stays_what_it_was(world):
    id = create(world)["guardrailId"]
    assert world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id)["version"] == "1"
    changed = {"wordPolicyConfig": {"wordsConfig": [{"text": "balloon"}]}}
    world("bedrock", "UpdateGuardrail", guardrailIdentifier=id, name="g", **BASE, **changed)
    assert apply(world, id, "zeppelin")["action"] == "NONE"
    world("bedrock", "UpdateGuardrail", guardrailIdentifier=id, name="g", **BASE, **WORDS)
    assert apply(world, id, "zeppelin")["action"] == "GUARDRAIL_INTERVENED"
    world("bedrock", "UpdateGuardrail", guardrailIdentifier=id, name="g", **BASE, **changed)
    assert apply(world, id, "a balloon")["action"] == "GUARDRAIL_INTERVENED"
    assert apply(world, id, "zeppelin", "1")["action"] == "GUARDRAIL_INTERVENED"
    assert world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id)["version"] == "2"
    listed = world("bedrock", "ListGuardrails", guardrailIdentifier=id)["guardrails"]
    assert [one["version"] for one in listed] == ["DRAFT", "1", "2"]
    world("bedrock", "DeleteGuardrail", guardrailIdentifier=id, guardrailVersion="2")
    fails(lambda: apply(world, id, "x", "2"), "ResourceNotFoundException")
    assert world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id)["version"] == "3"


def test_tokens_and_names(world):
    first = create(world, clientRequestToken="abc")
    assert create(world, clientRequestToken="abc") == first
    fails(lambda: create(world, "other", clientRequestToken="abc"), "ConflictException")
    fails(lambda: create(world), "ConflictException", "already has this name")
    id = first["guardrailId"]
    for _ in range(2):
        made = world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id, clientRequestToken="v")
        assert made["version"] == "1"
    world.advance(25 * 3_600)
    fails(lambda: create(world, clientRequestToken="abc"), "ConflictException", "already has this name")


def test_quotas(world):
    id = create(world)["guardrailId"]
    for _ in range(20):
        world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id)
    fails(
        lambda: world("bedrock", "CreateGuardrailVersion", guardrailIdentifier=id), "ServiceQuotaExceededException"
    )
    for number in range(99):
        create(world, f"n{number}")
    fails(lambda: create(world, "toomany"), "ServiceQuotaExceededException")


def test_tags(world):
    arn = create(world, tags=[{"key": "a", "value": "1"}])["guardrailArn"]
    world("bedrock", "TagResource", resourceARN=arn, tags=[{"key": "b", "value": "2"}])
    world("bedrock", "UntagResource", resourceARN=arn, tagKeys=["a"])
    assert world("bedrock", "ListTagsForResource", resourceARN=arn)["tags"] == [{"key": "b", "value": "2"}]
    many = [{"key": f"k{number}", "value": ""} for number in range(50)]
    fails(lambda: world("bedrock", "TagResource", resourceARN=arn, tags=many), "TooManyTagsException")
    gone = arn[:-1] + ("a" if arn[-1] != "a" else "b")
    fails(lambda: world("bedrock", "ListTagsForResource", resourceARN=gone), "ResourceNotFoundException")


FILTER = {"type": "HATE", "inputStrength": "LOW", "outputStrength": "LOW"}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"name": "a b"}, "regular expression pattern"),
        ({"blockedInputMessaging": "x" * 501}, "less than or equal to 500"),
        ({"wordPolicyConfig": None}, "at least one policy"),
        ({"wordPolicyConfig": {"wordsConfig": [{"text": "x" * 101}]}}, "less than or equal to 100"),
        ({"contentPolicyConfig": {"filtersConfig": [{**FILTER, "inputStrength": "HUGE"}]}}, "enum value set"),
        ({"contentPolicyConfig": {"filtersConfig": [FILTER, FILTER]}}, "Duplicate"),
        ({"contentPolicyConfig": {"filtersConfig": [{**FILTER, "type": "PROMPT_ATTACK"}]}}, "must be NONE"),
        ({"contentPolicyConfig": {"filtersConfig": [FILTER], "tierConfig": {"tierName": "STANDARD"}}}, "cross-Region"),
        ({"topicPolicyConfig": {"topicsConfig": [{"name": "t", "definition": "d" * 201, "type": "DENY"}]}}, "200"),
        ({"sensitiveInformationPolicyConfig": {"piiEntitiesConfig": [{"type": "SHOE", "action": "BLOCK"}]}}, "enum"),
        (
            {"sensitiveInformationPolicyConfig": {
                "regexesConfig": [{"name": "r", "pattern": "(?=a)b", "action": "BLOCK"}]}},
            "look-around",
        ),
        ({"contextualGroundingPolicyConfig": {"filtersConfig": [{"type": "GROUNDING", "threshold": 1}]}}, "0.99"),
        ({"automatedReasoningPolicyConfig": {"policies": ["x"]}}, "not supported"),
    ],
)  # fmt: skip
def test_what_a_guardrail_may_not_be(world, given, text):
    params = {"name": "g", **BASE, **WORDS, **given}
    params = {name: value for name, value in params.items() if value is not None}
    fails(lambda: world("bedrock", "CreateGuardrail", **params), "ValidationException", text)
    assert world("bedrock", "ListGuardrails")["guardrails"] == []


def test_what_apply_guardrail_refuses(world):
    id = create(world)["guardrailId"]
    fails(lambda: apply(world, id, "x", source="BOTH"), "ValidationException", "enum value set")
    fails(lambda: apply(world, id, ""), "ValidationException", "blank")
    fails(lambda: apply(world, id, "x", outputScope="SOME"), "ValidationException", "enum value set")
    image = {"image": {"format": "png", "source": {"bytes": b"x"}}}
    where = {"guardrailIdentifier": id, "guardrailVersion": "DRAFT", "source": "INPUT"}
    fails(
        lambda: world("bedrock-runtime", "ApplyGuardrail", content=[image], **where), "ValidationException", "Images"
    )
    fails(lambda: world("bedrock-runtime", "ApplyGuardrail", content=[], **where), "ValidationException", "empty")


def test_sides_and_detection_without_action(world):
    config = {
        "wordPolicyConfig": {
            "wordsConfig": [
                {"text": "seen", "inputAction": "NONE"},
                {"text": "answers", "inputEnabled": False},
            ]
        }
    }
    id = create(world, **config)["guardrailId"]
    seen = apply(world, id, "seen in answers")
    assert seen["action"] == "NONE" and seen["outputs"] == []
    words = seen["assessments"][0]["wordPolicy"]["customWords"]
    assert words == [{"match": "seen", "action": "NONE", "detected": True}]
    assert apply(world, id, "answers", source="OUTPUT")["outputs"] == [{"text": "out"}]


def test_units_are_counted_by_thousands(world):
    id = create(world)["guardrailId"]
    assert apply(world, id, "a" * 1_000)["usage"]["wordPolicyUnits"] == 1
    answer = apply(world, id, "a" * 1_001)
    assert answer["usage"]["wordPolicyUnits"] == 2 and answer["usage"]["topicPolicyUnits"] == 0


# -- behind a model ----------------------------------------------------------------------------------------------------


class Recorder:
    """A generator that says what it is told to, in pieces, and keeps what it was asked."""

    def __init__(self, *pieces):
        self.id = "recorder"
        self.pieces = pieces
        self.asked = []

    def generate(self, messages, system="", max_tokens=1_024, stop=(), temperature=None, top_p=None):
        self.asked.append(messages)
        return TextGeneration(iter(self.pieces), self.count_tokens, 3, 1_000_000, stop)

    def count_tokens(self, text):
        return len(text.split())


POLICY = Policy(
    words=(Word("secret plan"),),
    pii=(Pii("EMAIL", Sides("ANONYMIZE", "ANONYMIZE")), Pii("US_BANK_ROUTING_NUMBER", Sides("BLOCK", "ANONYMIZE"))),
    blocked_input="in",
    blocked_output="out",
)


def guarded(generator, mode, text="hello", policy=POLICY):
    guardrail = Guardrail(policy, Detectors(lambda: None))
    platform = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0))
    shield = Shield("id", "arn", "1", policy, None, lambda: guardrail, platform)
    prompt = Prompt((Content(text),), lambda texts: TextRequest((Message("user", texts[0]),)))
    return GuardedGeneration(shield, prompt, lambda request: generator.generate(request.messages), mode)


def test_blocked_input_never_reaches_the_model():
    generator = Recorder("fine")
    generation = guarded(generator, "whole", "the secret plan")
    assert list(generation) == ["in"] and generation.stop_reason == "guardrail_intervened"
    assert generator.asked == [] and generation.usage.input_tokens == 0


def test_masked_input_reaches_the_model_masked():
    generator = Recorder("fine")
    generation = guarded(generator, "whole", "I am a@b.example")
    assert list(generation) == ["fine"] and generation.stop_reason == "end_turn" and generation.intervened
    assert generator.asked[0][0].text == "I am {EMAIL}"


FILLER = "The quick brown fox jumps over the lazy dog and runs away. " * 12


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 90), before=st.integers(0, len(FILLER)), hidden=st.sampled_from(
    ["ann.smith@mail.example.com", "Routing number: 021000021", "the secret plan"]))  # fmt: skip
def test_a_checked_stream_never_leaks(size, before, hidden):
    said = f"{FILLER[:before]} {hidden} {FILLER}"
    generator = Recorder(*(said[at : at + size] for at in range(0, len(said), size)))
    generation = guarded(generator, "sync")
    sent = "".join(generation)
    assert generation.stop_reason == "guardrail_intervened"
    for part in ("ann.smith", "021000021", "secret plan"):
        assert part not in sent
    if hidden == "the secret plan":
        assert sent.endswith("out")
    else:
        masked = said.replace("ann.smith@mail.example.com", "{EMAIL}")
        assert sent == masked.replace("021000021", "{US_BANK_ROUTING_NUMBER}")


def test_a_checked_stream_flows():
    generation = guarded(Recorder(*(f"{word} " for word in (FILLER * 3).split())), "sync")
    assert len(list(generation)) > 3 and generation.stop_reason == "end_turn"


def test_a_pattern_without_a_bound_holds_everything_back():
    policy = Policy(patterns=(Pattern("all", "BEGIN.*END", Sides("NONE", "ANONYMIZE")),))
    generation = guarded(Recorder("a BEGIN ", FILLER, "x END b"), "sync", policy=policy)
    assert list(generation) == ["a {all} b"]


def test_an_unchecked_stream_is_checked_to_its_end():
    generation = guarded(Recorder("the ", "secret ", "plan"), "async")
    assert list(generation) == ["the ", "secret ", "plan", "out"]
    assert generation.stop_reason == "guardrail_intervened"


def test_answers_that_are_not_grounded_are_held_back_in_a_stream():
    policy = Policy(grounding=(Grounding("GROUNDING", 0.7),), blocked_output="out")
    guardrail = Guardrail(policy, Detectors(lambda: None))
    platform = SimpleNamespace(clock=SimpleNamespace(monotonic=lambda: 0.0))
    shield = Shield("id", "arn", "1", policy, None, lambda: guardrail, platform)
    source = Content("The tower was finished in 1889.", guard=False, source=True)
    prompt = Prompt((source,), lambda texts: TextRequest((Message("user", "q"),)))
    wrong = Recorder("Bananas ", "contain ", "potassium.")
    assert list(GuardedGeneration(shield, prompt, lambda request: wrong.generate(()), "sync")) == ["out"]


def test_embedders_take_no_guardrail(world):
    id = create(world)["guardrailId"]
    fails(
        lambda: world(
            "bedrock-runtime", "InvokeModel", modelId="preheat.hashing-1024", body=b'{"inputText": "x"}',
            guardrailIdentifier=id, guardrailVersion="DRAFT",
        ),
        "ValidationException", "does not generate text",
    )  # fmt: skip


def test_half_a_name_of_a_guardrail(world):
    fails(
        lambda: world(
            "bedrock-runtime", "InvokeModel", modelId="preheat.extractive-v1", body=b"{}", guardrailIdentifier="abc"
        ),
        "ValidationException", "guardrailVersion is missing",
    )  # fmt: skip


# -- permissions -------------------------------------------------------------------------------------------------------


def asked(world, service, operation, **params):
    ctx = Context(world.scope, world.clock.now(), world.db, ROOT, "", world.machine)
    return [(need.action, need.resource) for need in needs(ctx, service, operation, params) or []]


def test_what_must_be_allowed(world):
    arn = "arn:aws:bedrock:us-east-1:000000000000:guardrail/abc"
    model = "arn:aws:bedrock:us-east-1::foundation-model/preheat.extractive-v1"
    config = {"guardrailIdentifier": "abc", "guardrailVersion": "1"}
    both = [("bedrock:InvokeModel", model), ("bedrock:ApplyGuardrail", arn)]
    assert asked(world, "bedrock-runtime", "Converse", modelId="preheat.extractive-v1", guardrailConfig=config) == both
    assert asked(world, "bedrock-runtime", "InvokeModel", modelId="preheat.extractive-v1", **config) == both
    assert asked(world, "bedrock-runtime", "InvokeModel", modelId="preheat.extractive-v1") == both[:1]
    assert asked(world, "bedrock-runtime", "ApplyGuardrail", **config) == [("bedrock:ApplyGuardrail", arn)]
    assert asked(world, "bedrock", "GetGuardrail", guardrailIdentifier=arn) == [("bedrock:GetGuardrail", arn)]
    settings = {"modelConfiguration": {"modelArn": "preheat.extractive-v1"}}
    reranking = {"bedrockRerankingConfiguration": settings}
    assert asked(world, "bedrock-agent-runtime", "Rerank", rerankingConfiguration=reranking) == [
        ("bedrock:Rerank", "*"), ("bedrock:InvokeModel", model),
    ]  # fmt: skip
