"""SNS: platform applications, their endpoints, and what is pushed to them."""

import json

import pytest

from preheat.kernel.errors import AwsError
from tests.unit.test_sns import QUEUE, Sns

ROOT = "arn:aws:sns:us-east-1:000000000000:"
TOKEN_TAKEN = (
    "Invalid parameter: Token Reason: Endpoint {} already exists with the same Token, but different attributes."
)


class Push(Sns):
    def application(self, platform="GCM", name="app", **attributes):
        given = attributes or {"PlatformCredential": "key"}
        made = self.sns("CreatePlatformApplication", Name=name, Platform=platform, Attributes=given)
        return made["PlatformApplicationArn"]

    def device(self, application, token="token", **params):
        params = {"PlatformApplicationArn": application, "Token": token, **params}
        return self.sns("CreatePlatformEndpoint", **params)["EndpointArn"]

    def shown(self, device):
        return self.sns("GetEndpointAttributes", EndpointArn=device)["Attributes"]

    def set(self, device, **attributes):
        self.sns("SetEndpointAttributes", EndpointArn=device, Attributes=attributes)

    def outbox(self):
        found = self.machine.services["sns"].outbox()
        return [(one["protocol"], one["recipient"], one["body"]) for one in reversed(found)]


@pytest.fixture
def world():
    world = Push()
    yield world
    assert world.defects == []


# -- applications -----------------------------------------------------------------------------------------------------


def test_an_application_never_gives_its_credentials_back(world):
    secrets = {"PlatformCredential": "private key", "PlatformPrincipal": "certificate"}
    arn = world.application("APNS", **secrets, ApplePlatformBundleID="a.b", ApplePlatformTeamID="team")
    assert arn == ROOT + "app/APNS/app"
    shown = {
        "Enabled": "true", "AuthenticationMethod": "Token", "ApplePlatformBundleID": "a.b",
        "ApplePlatformTeamID": "team",
    }  # fmt: skip
    assert world.sns("GetPlatformApplicationAttributes", PlatformApplicationArn=arn) == {"Attributes": shown}
    listed = {"PlatformApplicationArn": arn, "Attributes": shown}
    assert world.sns("ListPlatformApplications") == {"PlatformApplications": [listed]}
    assert "private key" not in str([tuple(row) for row in world.db.all("SELECT * FROM sns_applications")])


@pytest.mark.parametrize(
    ("platform", "attributes", "method"),
    [
        ("GCM", {"PlatformCredential": "key"}, "Key"),
        ("GCM", {"PlatformCredential": '{"type": "service_account"}'}, "Token"),
        ("APNS_SANDBOX", {"PlatformCredential": "key", "PlatformPrincipal": "certificate"}, "Certificate"),
        ("ADM", {"PlatformCredential": "secret", "PlatformPrincipal": "id"}, None),
    ],
)
def test_how_an_application_authenticates(world, platform, attributes, method):
    arn = world.application(platform, **attributes)
    values = world.sns("GetPlatformApplicationAttributes", PlatformApplicationArn=arn)["Attributes"]
    assert values == {"Enabled": "true"} | ({"AuthenticationMethod": method} if method else {})


@pytest.mark.parametrize(
    ("name", "platform", "attributes", "reason"),
    [
        ("", "GCM", {}, " Reason: cannot be empty"),
        ("x" * 257, "GCM", {}, "x" * 257 + " Reason: must be at most 256 characters long"),
        ("a b", "GCM", {},
         "a b Reason: must contain only characters 'a'-'z', 'A'-'Z', '0'-'9', '_', '-', and '.'"),
        ("app", "PAGER", {}, "Platform Reason: PAGER is not supported"),
        ("app", "ADM", {"PlatformCredential": "x"},
         "Attributes Reason: PlatformCredential attribute provided without PlatformPrincipal"),
        ("app", "APNS", {"PlatformPrincipal": "x"},
         "Attributes Reason: PlatformPrincipal attribute provided without PlatformCredential"),
        ("app", "GCM", {"Nonsense": "x"}, "Attributes Reason: Invalid attribute name: Nonsense"),
    ],
)  # fmt: skip
def test_what_an_application_may_not_be(world, name, platform, attributes, reason):
    refused = world.refused("CreatePlatformApplication", Name=name, Platform=platform, Attributes=attributes)
    assert refused == ("InvalidParameter", f"Invalid parameter: {reason}")
    assert world.sns("ListPlatformApplications") == {"PlatformApplications": []}


@pytest.mark.parametrize(
    ("arn", "code", "message"),
    [
        ("a-fake-arn", "InvalidParameter",
         "Invalid parameter: PlatformApplicationArn Reason: An ARN must have at least 6 elements, not 1"),
        (ROOT + "app/GCM", "InvalidParameter", "Invalid parameter: PlatformApplicationArn Reason: Wrong number of "
         "slashes in relative portion of the ARN."),
        (ROOT + "app/GCM/none", "NotFound", "PlatformApplication does not exist"),
        (ROOT.replace("us-east-1", "eu-west-1") + "app/GCM/app", "InvalidParameter",
         "Invalid parameter: PlatformApplicationArn"),
    ],
)  # fmt: skip
def test_an_application_that_is_not_there(world, arn, code, message):
    world.application()
    for operation, params in (
        ("GetPlatformApplicationAttributes", {}), ("ListEndpointsByPlatformApplication", {}),
        ("SetPlatformApplicationAttributes", {"Attributes": {"Enabled": "false"}}),
        ("CreatePlatformEndpoint", {"Token": "t"}),
    ):  # fmt: skip
        assert world.refused(operation, PlatformApplicationArn=arn, **params) == (code, message)


def test_an_application_goes_with_its_devices(world):
    arn = world.application()
    device = world.device(arn)
    for _ in range(2):
        assert world.sns("DeletePlatformApplication", PlatformApplicationArn=arn) == {}
    assert world.refused("GetEndpointAttributes", EndpointArn=device) == ("NotFound", "Endpoint does not exist")
    assert world.sns("ListEndpointsByPlatformApplication", PlatformApplicationArn=world.application()) == {
        "Endpoints": []
    }  # fmt: skip


# -- endpoints --------------------------------------------------------------------------------------------------------


def test_a_device_is_known_by_its_token(world):
    application = world.application()
    arn = world.device(application, CustomUserData="u")
    assert arn.startswith(ROOT + "endpoint/GCM/app/") and len(arn.rsplit("/", 1)[1]) == 36
    assert world.shown(arn) == {"Enabled": "true", "Token": "token", "CustomUserData": "u"}
    same = {"CustomUserData": "u", "Enabled": "true"}
    assert world.device(application, CustomUserData="other", Attributes=same) == arn
    for different in ({}, {"CustomUserData": "v"}, {"CustomUserData": "u", "Attributes": {"Enabled": "false"}}):
        with pytest.raises(AwsError) as caught:
            world.device(application, **different)
        assert (caught.value.code, caught.value.message) == ("InvalidParameter", TOKEN_TAKEN.format(arn))
    listed = world.sns("ListEndpointsByPlatformApplication", PlatformApplicationArn=application)["Endpoints"]
    assert listed == [{"EndpointArn": arn, "Attributes": world.shown(arn)}]


def test_a_devices_attributes(world):
    application = world.application()
    first, second = world.device(application, "1"), world.device(application, "2")
    world.set(first, Enabled="False", CustomUserData="u")
    world.set(first, Token="3")
    assert world.shown(first) == {"Enabled": "false", "Token": "3", "CustomUserData": "u"}
    with pytest.raises(AwsError) as caught:
        world.set(first, Token="2")
    assert caught.value.message == TOKEN_TAKEN.format(second)
    for attributes, reason in (
        ({"Nonsense": "x"}, "Invalid attribute name: Nonsense"),
        ({"CustomUserData": "é" * 1_025}, "Invalid value for attribute: CustomUserData: must be at most 2048 bytes "
         "long in UTF-8 encoding"),
    ):  # fmt: skip
        refused = world.refused("SetEndpointAttributes", EndpointArn=first, Attributes=attributes)
        assert refused == ("InvalidParameter", f"Invalid parameter: Attributes Reason: {reason}")
    for _ in range(2):
        assert world.sns("DeleteEndpoint", EndpointArn=first) == {}
    assert world.refused("GetEndpointAttributes", EndpointArn=first) == ("NotFound", "Endpoint does not exist")


@pytest.mark.parametrize(
    ("platform", "token", "reason"),
    [
        ("GCM", "", "cannot be empty"),
        ("GCM", "x" * 8_193, "must be at most 8192 bytes long in UTF-8 encoding"),
        ("APNS", "no hex", "iOS device tokens must be no more than 400 hexadecimal characters"),
        ("APNS", "a" * 401, "iOS device tokens must be no more than 400 hexadecimal characters"),
    ],
)
def test_what_a_token_may_not_be(world, platform, token, reason):
    secrets = {"PlatformCredential": "x", "PlatformPrincipal": "y"}
    application = world.application(platform, **secrets)
    refused = world.refused("CreatePlatformEndpoint", PlatformApplicationArn=application, Token=token)
    assert refused == ("InvalidParameter", f"Invalid parameter: Token Reason: {reason}")


def test_apples_tokens_are_in_lower_case(world):
    application = world.application("APNS", PlatformCredential="x", PlatformPrincipal="y")
    assert world.shown(world.device(application, "ABC123"))["Token"] == "abc123"


# -- what is pushed ---------------------------------------------------------------------------------------------------


def test_a_device_gets_the_text_of_its_platform(world):
    device = world.device(world.application())
    world.sns("Publish", TargetArn=device, Message="plain")
    own = json.dumps({"GCM": '{"data": {}}'})
    world.sns("Publish", TargetArn=device, Message=own, MessageStructure="json")
    both = json.dumps({"default": "d", "APNS": "a"})
    assert world.sns("Publish", TargetArn=device, Message=both, MessageStructure="json")["MessageId"]
    assert world.outbox() == [("application", device, text) for text in ("plain", '{"data": {}}', "d")]
    refused = world.refused("Publish", TargetArn=device, Message='{"APNS": "a"}', MessageStructure="json")
    assert refused[1] == "Invalid parameter: Message Structure - No default entry in JSON message body"


def test_what_is_disabled_gets_nothing(world):
    application = world.application()
    device = world.device(application, Attributes={"Enabled": "false"})
    publish = {"TargetArn": device, "Message": "no JSON", "MessageStructure": "json"}
    assert world.refused("Publish", **publish) == ("EndpointDisabled", "Endpoint is disabled")
    attributes = {"Enabled": "false"}
    world.sns("SetPlatformApplicationAttributes", PlatformApplicationArn=application, Attributes=attributes)
    assert world.refused("Publish", **publish) == ("PlatformApplicationDisabled", "Platform application is disabled")
    gone = world.refused("Publish", TargetArn=device[:-1] + "!", Message="m")
    assert gone == ("InvalidParameter", "Invalid parameter: TargetArn Reason: No endpoint found for the target arn "
                    "specified")  # fmt: skip
    assert world.outbox() == []


def test_devices_follow_a_topic(world):
    topic, application = world.topic(), world.application()
    device = world.device(application)
    letters = json.dumps({"deadLetterTargetArn": QUEUE + "dead"})
    params = {"TopicArn": topic, "Protocol": "application", "Endpoint": device}
    arn = world.sns("Subscribe", **params, Attributes={"RedrivePolicy": letters})["SubscriptionArn"]
    shown = world.sns("GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]
    assert shown["PendingConfirmation"] == "false"
    message = json.dumps({"default": "d", "GCM": "g"})
    world.sns("Publish", TopicArn=topic, Message=message, MessageStructure="json")
    assert world.outbox() == [("application", device, "g")]
    world.set(device, Enabled="false")
    world.sns("Publish", TopicArn=topic, Message="lost")
    assert len(world.outbox()) == 1
    delivery = json.loads(world.db.value("SELECT payload FROM due"))
    assert (delivery["target"], delivery["dead_letter"]) == (device, QUEUE + "dead")
    assert json.loads(delivery["body"])["Message"] == "lost"


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("device", "ApplicationEndpoint ARN"),
        (ROOT + "endpoint/GCM/app/gone",
         f"Endpoint Reason: Endpoint does not exist for endpoint arn{ROOT}endpoint/GCM/app/gone"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_follows_nothing(world, endpoint, message):
    world.application()
    refused = world.refused("Subscribe", TopicArn=world.topic(), Protocol="application", Endpoint=endpoint)
    assert refused == ("InvalidParameter", f"Invalid parameter: {message}")
