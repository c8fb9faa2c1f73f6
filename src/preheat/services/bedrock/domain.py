"""What a guardrail's configuration may be (botocore's constraints and AWS's quotas), and how it is shown."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from preheat.kernel.errors import AwsError, ValidationError
from preheat.kernel.scope import Scope
from preheat.models.guardrails.contract import TooComplex
from preheat.models.guardrails.regexes import SafeRegex
from preheat.services.constraints import violated

MOST_GUARDRAILS, MOST_VERSIONS, MOST_TAGS = 100, 20, 50
POLICIES = (
    "topicPolicyConfig", "contentPolicyConfig", "wordPolicyConfig", "sensitiveInformationPolicyConfig",
    "contextualGroundingPolicyConfig", "automatedReasoningPolicyConfig",
)  # fmt: skip
CONFIGURATION = ("name", "description", *POLICIES, "crossRegionConfig", "blockedInputMessaging",
                 "blockedOutputsMessaging", "kmsKeyId")  # fmt: skip
STRENGTHS = ("NONE", "LOW", "MEDIUM", "HIGH")
FILTERS = ("SEXUAL", "VIOLENCE", "HATE", "INSULTS", "MISCONDUCT", "PROMPT_ATTACK")
BLOCK, SENSITIVE = ("BLOCK", "NONE"), ("BLOCK", "ANONYMIZE", "NONE")
ENTITIES = (
    "ADDRESS", "AGE", "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "CA_HEALTH_NUMBER", "CA_SOCIAL_INSURANCE_NUMBER",
    "CREDIT_DEBIT_CARD_CVV", "CREDIT_DEBIT_CARD_EXPIRY", "CREDIT_DEBIT_CARD_NUMBER", "DRIVER_ID", "EMAIL",
    "INTERNATIONAL_BANK_ACCOUNT_NUMBER", "IP_ADDRESS", "LICENSE_PLATE", "MAC_ADDRESS", "NAME", "PASSWORD", "PHONE",
    "PIN", "SWIFT_CODE", "UK_NATIONAL_HEALTH_SERVICE_NUMBER", "UK_NATIONAL_INSURANCE_NUMBER",
    "UK_UNIQUE_TAXPAYER_REFERENCE_NUMBER", "URL", "USERNAME", "US_BANK_ACCOUNT_NUMBER", "US_BANK_ROUTING_NUMBER",
    "US_INDIVIDUAL_TAX_IDENTIFICATION_NUMBER", "US_PASSPORT_NUMBER", "US_SOCIAL_SECURITY_NUMBER",
    "VEHICLE_IDENTIFICATION_NUMBER",
)  # fmt: skip
SHOWN = {
    "topicPolicyConfig": ("topicPolicy", {"topicsConfig": "topics", "tierConfig": "tier"}),
    "contentPolicyConfig": ("contentPolicy", {"filtersConfig": "filters", "tierConfig": "tier"}),
    "wordPolicyConfig": ("wordPolicy", {"wordsConfig": "words", "managedWordListsConfig": "managedWordLists"}),
    "sensitiveInformationPolicyConfig": (
        "sensitiveInformationPolicy", {"piiEntitiesConfig": "piiEntities", "regexesConfig": "regexes"},
    ),
    "contextualGroundingPolicyConfig": (
        "contextualGroundingPolicy", {"filtersConfig": "filters", "tierConfig": "tier"},
    ),
}  # fmt: skip
_IDENTIFIER = re.compile(r"([a-z0-9]+)|arn:aws(?:-[^:]+)?:bedrock:([a-z0-9-]{1,20}):([0-9]{12}):guardrail/([a-z0-9]+)")
_PROFILE = r"[a-z0-9-]+[.]{1}guardrail[.]{1}v[0-9:]+"
_PROFILE_ARN = rf"arn:aws(-[^:]+)?:bedrock:[a-z0-9-]{{1,20}}:[0-9]{{12}}:guardrail-profile/{_PROFILE}"
_KEY = r"[a-zA-Z0-9-]{36}"


def not_found(identifier: str) -> AwsError:
    return AwsError(
        "ResourceNotFoundException", f"The guardrail {identifier} or the version of it does not exist.", 404
    )


def text(given: Mapping[str, Any], member: str, least: int, most: int, pattern: str = "", path: str = "") -> None:
    value = given.get(member)
    if value is None:
        return
    where = f"{path}{member}"
    if len(value) < least:
        raise violated(where, value, f"have length greater than or equal to {least}")
    if len(value) > most:
        raise violated(where, value, f"have length less than or equal to {most}")
    if pattern and re.fullmatch(pattern, value) is None:
        raise violated(where, value, f"satisfy regular expression pattern: {pattern}")


def choice(given: Mapping[str, Any], member: str, choices: Iterable[str], path: str) -> None:
    value = given.get(member)
    if value is not None and value not in choices:
        raise violated(f"{path}{member}", value, f"satisfy enum value set: [{', '.join(choices)}]")


def several(given: Mapping[str, Any], member: str, least: int, most: int, path: str) -> list[tuple[str, Any]]:
    """(path, item) of a list within its bounds."""
    items = given.get(member)
    if items is None:
        return []
    if len(items) < least:
        raise violated(f"{path}{member}", items, f"have length greater than or equal to {least}")
    if len(items) > most:
        raise violated(f"{path}{member}", len(items), f"have length less than or equal to {most}")
    return [(f"{path}{member}.{at + 1}.member.", item) for at, item in enumerate(items)]


def distinct(items: list[tuple[str, Any]], member: str, what: str) -> None:
    seen = set()
    for _, item in items:
        if item[member] in seen:
            raise ValidationError(f"Duplicate {what} found in the guardrail configuration: {item[member]}.")
        seen.add(item[member])


def check(given: Mapping[str, Any]) -> None:
    """A configuration for CreateGuardrail or UpdateGuardrail. Raises ValidationException."""
    text(given, "name", 1, 50, "[0-9a-zA-Z-_]+")
    text(given, "description", 1, 200)
    text(given, "blockedInputMessaging", 1, 500)
    text(given, "blockedOutputsMessaging", 1, 500)
    text(given, "kmsKeyId", 1, 2_048, rf"arn:aws(-[^:]+)?:kms:[a-zA-Z0-9-]*:[0-9]{{12}}:key/{_KEY}|{_KEY}")
    if not any(given.get(name) for name in POLICIES):
        raise ValidationError("Guardrail must have at least one policy configured.")
    if given.get("automatedReasoningPolicyConfig"):
        raise ValidationError("Automated reasoning policies are not supported in this Region.")
    _check_topics(given.get("topicPolicyConfig") or {})
    _check_content(given.get("contentPolicyConfig") or {})
    _check_words(given.get("wordPolicyConfig") or {})
    _check_sensitive(given.get("sensitiveInformationPolicyConfig") or {})
    _check_grounding(given.get("contextualGroundingPolicyConfig") or {})
    cross = given.get("crossRegionConfig")
    if cross:
        pattern = f"{_PROFILE}|{_PROFILE_ARN}"
        text(cross, "guardrailProfileIdentifier", 15, 2_048, pattern, "crossRegionConfig.")
    for name in ("topicPolicyConfig", "contentPolicyConfig", "contextualGroundingPolicyConfig"):
        tier = (given.get(name) or {}).get("tierConfig") or {}
        choice(tier, "tierName", ("CLASSIC", "STANDARD"), f"{name}.tierConfig.")
        if tier.get("tierName") == "STANDARD" and not cross:
            raise ValidationError("The STANDARD tier needs cross-Region inference: add crossRegionConfig.")


def _check_actions(item: Mapping[str, Any], choices: tuple[str, ...], path: str) -> None:
    for member in ("action", "inputAction", "outputAction"):
        choice(item, member, choices, path)


def _check_topics(policy: Mapping[str, Any]) -> None:
    topics = several(policy, "topicsConfig", 1, 30, "topicPolicyConfig.")
    for path, topic in topics:
        text(topic, "name", 1, 100, r"[0-9a-zA-Z-_ !?.]+", path)
        text(topic, "definition", 1, 200, "", path)
        choice(topic, "type", ("DENY",), path)
        _check_actions(topic, BLOCK, path)
        for at, example in enumerate(item for _, item in several(topic, "examples", 0, 5, path)):
            text({"member": example}, "member", 1, 100, "", f"{path}examples.{at + 1}.")
    distinct(topics, "name", "topic name")


def _check_content(policy: Mapping[str, Any]) -> None:
    filters = several(policy, "filtersConfig", 1, 6, "contentPolicyConfig.")
    for path, one in filters:
        choice(one, "type", FILTERS, path)
        choice(one, "inputStrength", STRENGTHS, path)
        choice(one, "outputStrength", STRENGTHS, path)
        _check_actions(one, BLOCK, path)
        if one["type"] == "PROMPT_ATTACK" and one["outputStrength"] != "NONE":
            raise ValidationError("Invalid outputStrength for PROMPT_ATTACK filter: outputStrength must be NONE.")
        for side in ("inputModalities", "outputModalities"):
            for place, modality in several(one, side, 1, 2, path):
                choice({"": modality}, "", ("TEXT", "IMAGE"), place.rstrip("."))
    distinct(filters, "type", "content filter")


def _check_words(policy: Mapping[str, Any]) -> None:
    words = several(policy, "wordsConfig", 1, 10_000, "wordPolicyConfig.")
    for path, word in words:
        text(word, "text", 1, 100, "", path)
        _check_actions(word, BLOCK, path)
    distinct(words, "text", "word")
    lists = several(policy, "managedWordListsConfig", 0, 1, "wordPolicyConfig.")
    for path, one in lists:
        choice(one, "type", ("PROFANITY",), path)
        _check_actions(one, BLOCK, path)


def _check_sensitive(policy: Mapping[str, Any]) -> None:
    start = "sensitiveInformationPolicyConfig."
    entities = several(policy, "piiEntitiesConfig", 1, len(ENTITIES), start)
    for path, one in entities:
        choice(one, "type", ENTITIES, path)
        _check_actions(one, SENSITIVE, path)
    distinct(entities, "type", "PII entity")
    patterns = several(policy, "regexesConfig", 1, 30, start)
    for path, one in patterns:
        text(one, "name", 1, 100, "", path)
        text(one, "description", 1, 1_000, "", path)
        text(one, "pattern", 1, 500, "", path)
        _check_actions(one, SENSITIVE, path)
        try:
            SafeRegex(one["pattern"])
        except TooComplex as error:
            raise ValidationError(f"Invalid regex pattern in {one['name']}: {error}.") from None
    distinct(patterns, "name", "regex name")


def _check_grounding(policy: Mapping[str, Any]) -> None:
    filters = several(policy, "filtersConfig", 1, 2, "contextualGroundingPolicyConfig.")
    for path, one in filters:
        choice(one, "type", ("GROUNDING", "RELEVANCE"), path)
        _check_actions(one, BLOCK, path)
        if not 0 <= one["threshold"] <= 0.99:
            raise ValidationError(
                f"Invalid threshold {one['threshold']} at '{path}threshold': it must be between 0 and 0.99."
            )
    distinct(filters, "type", "contextual grounding filter")


def check_tags(tags: list[dict[str, Any]]) -> None:
    for at, tag in enumerate(tags):
        path = f"tags.{at + 1}.member."
        text(tag, "key", 1, 128, r"[a-zA-Z0-9\s._:/=+@-]*", path)
        text(tag, "value", 0, 256, r"[a-zA-Z0-9\s._:/=+@-]*", path)


def read_identifier(identifier: str, scope: Scope) -> tuple[Scope, str]:
    """(where, id) of an id or an ARN. Raises ValidationException."""
    match = _IDENTIFIER.fullmatch(identifier)
    if match is None or len(identifier) > 2_048:
        raise ValidationError("The provided guardrail identifier is invalid.")
    if match.group(1):
        return scope, match.group(1)
    return Scope(match.group(3), match.group(2)), match.group(4)


def read_version(label: str | None) -> int:
    if label in (None, "DRAFT"):
        return 0
    assert label is not None
    if re.fullmatch(r"[1-9][0-9]{0,7}", label) is None:
        raise violated("guardrailVersion", label, "satisfy regular expression pattern: (([1-9][0-9]{0,7})|(DRAFT))")
    return int(label)


def arn_of(scope: Scope, id: str) -> str:
    return scope.arn("bedrock", f"guardrail/{id}")


def shown(document: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The configuration as GetGuardrail gives it."""
    output: dict[str, Any] = {
        name: document[name]
        for name in ("name", "description", "blockedInputMessaging", "blockedOutputsMessaging")
        if name in document
    }
    for name, (policy, members) in SHOWN.items():
        if document.get(name):
            output[policy] = {members[member]: value for member, value in document[name].items()}
    return {**output, **cross_region(document, scope), **_key(document, scope)}


def cross_region(document: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    if not document.get("crossRegionConfig"):
        return {}
    given = document["crossRegionConfig"]["guardrailProfileIdentifier"]
    id = given.rpartition("/")[2]
    arn = given if given.startswith("arn:") else scope.arn("bedrock", f"guardrail-profile/{id}")
    return {"crossRegionDetails": {"guardrailProfileId": id, "guardrailProfileArn": arn}}


def _key(document: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    given = document.get("kmsKeyId")
    if not given:
        return {}
    return {"kmsKeyArn": given if given.startswith("arn:") else scope.arn("kms", f"key/{given}")}
