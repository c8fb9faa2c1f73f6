"""SNS's rules, pure: names, errors, topics and subscriptions as values. Texts and limits: aws_facts section 3."""

import base64
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn, Scope
from preheat.services.contract import Params

SERVICE = "sns.amazonaws.com"
DEFAULT_MAX_BYTES = 262_144
LARGEST_MAX_BYTES = 1_048_576
DEDUPLICATION_WINDOW_MS = 300_000
TOKEN_LIFE_MS = 2 * 86_400_000
TOKEN_LENGTH = 288
MAX_TAGS = 50
MAX_FIFO_SUBSCRIPTIONS = 100
PAGE = 100
PROTOCOLS = ("http", "https", "email", "email-json", "sms", "sqs", "application", "lambda", "firehose")
NAME = re.compile(r"[A-Za-z0-9_-]{1,256}\Z")
FIFO_NAME = re.compile(r"[A-Za-z0-9_-]{1,251}\.fifo\Z")
PHONE = re.compile(r"\+?[1-9][0-9]{1,14}\Z")
SEPARATED = re.compile(r"(?<=[0-9])[./-](?=[0-9])")
"""A point, slash or hyphen between two digits of a phone number."""
PUNCTUATED = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}\Z")
DEFAULT_POLICY_ACTIONS = (
    "GetTopicAttributes", "SetTopicAttributes", "AddPermission", "RemovePermission", "DeleteTopic", "Subscribe",
    "ListSubscriptionsByTopic", "Publish",
)  # fmt: skip

State = Literal["pending", "confirmed", "deleted"]


@dataclass(frozen=True, slots=True)
class Topic:
    """`attributes` are those that were set, by AWS's names."""

    id: int
    scope: Scope
    name: str
    attributes: dict[str, str]
    tags: dict[str, str]
    arn: str
    fifo: bool

    @property
    def max_bytes(self) -> int:
        return int(self.attributes.get("MaximumMessageSize", DEFAULT_MAX_BYTES))

    @property
    def signature_version(self) -> str:
        return self.attributes.get("SignatureVersion", "1")

    @property
    def policy(self) -> str:
        return self.attributes.get("Policy") or default_policy(self.arn, self.scope.account)


@dataclass(frozen=True, slots=True)
class Subscription:
    """`owner` is the account of `principal` (an ARN), who subscribed. `authenticated`: the confirmation was signed;
    `guarded`: only a signed request may end it."""

    id: int
    topic_id: int
    topic_arn: str
    uid: str
    protocol: str
    endpoint: str
    owner: str
    principal: str
    state: State
    authenticated: bool
    guarded: bool
    token: str | None
    attributes: dict[str, str]

    @property
    def arn(self) -> str:
        return f"{self.topic_arn}:{self.uid}"

    @property
    def raw(self) -> bool:
        return self.attributes.get("RawMessageDelivery") == "true"


def make_topic(row: Any) -> Topic:
    """A Topic of a row of `sns_topics`."""
    scope, name = Scope(row["account"], row["region"]), row["name"]
    attributes, tags = msgspec.json.decode(row["attributes"]), msgspec.json.decode(row["tags"])
    return Topic(row["id"], scope, name, attributes, tags, scope.arn("sns", name), name.endswith(".fifo"))


def make_subscription(row: Any) -> Subscription:
    """A Subscription of a row of `sns_subscriptions`."""
    return Subscription(
        row["id"], row["topic_id"], row["topic_arn"], row["uid"], row["protocol"], row["endpoint"], row["owner"],
        row["principal"], row["state"], bool(row["authenticated"]), bool(row["guarded"]), row["token"],
        msgspec.json.decode(row["attributes"]),
    )  # fmt: skip


# -- errors -----------------------------------------------------------------------------------------------------------


def invalid(reason: str) -> AwsError:
    return AwsError("InvalidParameter", f"Invalid parameter: {reason}")


def invalid_value(message: str) -> AwsError:
    return AwsError("ParameterValueInvalid", message)


def not_found(what: str) -> AwsError:
    """`what`: "Topic", "Subscription", "Endpoint" or "PlatformApplication"."""
    return AwsError("NotFound", f"{what} does not exist", 404)


def no_such_resource() -> AwsError:
    return AwsError("ResourceNotFound", "Resource does not exist", 404)


def not_authorized(action: str) -> AwsError:
    return AwsError("AuthorizationError", f"Not authorized to perform: {action}", 403)


# -- names ------------------------------------------------------------------------------------------------------------


def check_name(name: str, fifo: bool) -> None:
    if fifo:
        if not FIFO_NAME.match(name):
            raise invalid(
                "Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII "
                "letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long."
            )
    elif not NAME.match(name):
        raise invalid("Topic Name")


def topic_arn(text: str, member: str = "TopicArn") -> Arn:
    """The parts of a topic's ARN. Raises InvalidParameter."""
    parts = text.split(":")
    if len(parts) < 6:
        raise invalid(f"{member} Reason: An ARN must have at least 6 elements, not {len(parts)}")
    if parts[0] != "arn" or parts[2] != "sns":
        raise invalid(member)
    return Arn(*parts[1:5], ":".join(parts[5:]))


def subscription_uid(arn: str) -> str:
    """The last part of a subscription's ARN. Raises InvalidParameter."""
    parts = arn.split(":")
    if len(parts) < 6:
        raise invalid(f"SubscriptionArn Reason: An ARN must have at least 6 elements, not {len(parts)}")
    if len(parts) < 7:
        raise invalid("SubscriptionId")
    return parts[6]


def page_token(last: str) -> str:
    """The NextToken of a page that ends with `last`."""
    return base64.b64encode(last.encode()).decode()


def read_page(params: Params) -> str:
    """Where the page before this one ended, "" for the first. Raises InvalidParameter."""
    try:
        return base64.b64decode(params.get("NextToken") or "", validate=True).decode()
    except ValueError:
        raise invalid("NextToken") from None


def read_number(params: Params) -> int:
    """The row after which a page begins, 0 for the first. Raises InvalidParameter."""
    last = read_page(params)
    if last and not last.isdecimal():
        raise invalid("NextToken")
    return int(last or 0)


def default_policy(arn: str, account: str) -> str:
    """What a topic has when nobody gave it a policy: its owner's account may do everything."""
    statement = {
        "Sid": "__default_statement_ID",
        "Effect": "Allow",
        "Principal": {"AWS": "*"},
        "Action": [f"SNS:{name}" for name in DEFAULT_POLICY_ACTIONS],
        "Resource": arn,
        "Condition": {"StringEquals": {"AWS:SourceOwner": account}},
    }
    document = {"Version": "2008-10-17", "Id": "__default_policy_ID", "Statement": [statement]}
    return msgspec.json.encode(document).decode()


def check_tags(tags: dict[str, str], given: int) -> None:
    """`given`: how many the request named, to find a key that came twice."""
    if len(tags) < given:
        raise invalid("Duplicated keys are not allowed.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:"):
            raise invalid("Tags Reason: Tag key is not valid")
        if len(value) > 256:
            raise invalid("Tags Reason: Tag value is not valid")
    if len(tags) > MAX_TAGS:
        raise AwsError(
            "TagLimitExceeded", "Could not complete request: tag quota of per resource exceeded"
        )
