"""SNS's deliveries carried out: functions, web endpoints, retries, dead letters, links, signatures, policies."""

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest
from preheat.kernel.scope import Scope
from preheat.services.contract import Principal
from preheat.services.s3.service import build as build_s3
from preheat.services.sns.policies import MANAGED, effective_policy, http_ladder
from preheat.services.sns.service import build as build_sns
from tests.support.endpoint import Endpoint
from tests.support.functions import TriggerWorld

TOPIC = "arn:aws:sns:us-east-1:000000000000:t"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
ANONYMOUS = Principal("anonymous", "", "anonymous")


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


@pytest.fixture
def world():
    world = TriggerWorld(build_sns)
    world("sns", "CreateTopic", Name="t")
    yield world
    assert world.defects == []


def follow(world, protocol, target, **attributes):
    params = {"TopicArn": TOPIC, "Protocol": protocol, "Endpoint": target, "Attributes": attributes}
    return world("sns", "Subscribe", **params, ReturnSubscriptionArn=True)["SubscriptionArn"]


def publish(world, message="m", **params):
    answer = world("sns", "Publish", TopicArn=TOPIC, Message=message, **params)
    world.settle()
    return answer


def as_nobody(world, operation, **params):
    replies = []
    world.machine.submit("sns", operation, params, replies.append, scope=Scope(), principal=ANONYMOUS)
    world.settle()
    return replies[0].output if not isinstance(replies[0], AwsError) else replies[0]


def confirmed(world, endpoint, **attributes):
    """The ARN of a web subscription, confirmed with what was posted."""
    arn = follow(world, "http", endpoint.url, **attributes)
    world.settle()
    token = json.loads(endpoint.posts.pop()[1])["Token"]
    assert as_nobody(world, "ConfirmSubscription", TopicArn=TOPIC, Token=token) == {"SubscriptionArn": arn}
    return arn


def metrics(world):
    found = {}
    for (series, _), sample in world.machine.meter.take().items():
        if series.namespace == "AWS/SNS":
            found[series.name] = found.get(series.name, 0) + sample.total
    return found


def verify(world, document):
    """Check the signature as AWS documents it, with the certificate that the server shows."""
    replies = []
    service = world.machine.services["sns"]
    world.machine.perform(lambda ctx: {"pem": service.certificate(ctx)}, replies.append)
    world.settle()
    certificate = x509.load_pem_x509_certificate(replies[0].output["pem"].encode())
    names = ["Message", "MessageId"]
    names += ["Subject"] if document.get("Subject") is not None else []
    names += ["SubscribeURL"] if document["Type"] != "Notification" else []
    names += ["Timestamp"]
    names += ["Token"] if document["Type"] != "Notification" else []
    names += ["TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in names)
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[document["SignatureVersion"]]
    signature = base64.b64decode(document["Signature"])
    certificate.public_key().verify(signature, text.encode(), padding.PKCS1v15(), digest)


# -- functions --------------------------------------------------------------------------------------------------------


def test_a_function_gets_a_record(world):
    world.create()
    arn = follow(world, "lambda", FUNCTION)
    sent = publish(world, "hello", MessageAttributes={"n": {"DataType": "Number", "StringValue": "1"}})
    event, = world.executor.events()
    record, = event["Records"]
    assert (record["EventSource"], record["EventVersion"], record["EventSubscriptionArn"]) == ("aws:sns", "1.0", arn)
    body = record["Sns"]
    assert body["Subject"] is None and body["MessageId"] == sent["MessageId"] and body["Message"] == "hello"
    assert body["MessageAttributes"] == {"n": {"Type": "Number", "Value": "1"}}
    assert body["SigningCertUrl"].endswith("/_preheat/sns/SimpleNotificationService.pem")
    assert body["UnsubscribeUrl"].endswith(arn)
    verify(world, body)
    assert metrics(world)["NumberOfNotificationsDelivered"] == 1


def test_a_function_that_is_gone_is_a_dead_letter_with_the_envelope(world):
    url, dead = world.queue("dead")
    follow(world, "lambda", FUNCTION, RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))
    sent = publish(world, "lost")
    body = json.loads(world.receive(url)[0]["Body"])
    assert (body["Type"], body["MessageId"], body["Message"]) == ("Notification", sent["MessageId"], "lost")
    found = metrics(world)
    assert (found["NumberOfNotificationsFailed"], found["NumberOfNotificationsRedrivenToDlq"]) == (1, 1)


# -- queues -----------------------------------------------------------------------------------------------------------


def test_a_queue_that_is_gone_is_a_dead_letter_at_once(world):
    url, _ = world.queue("q")
    dead_url, dead = world.queue("dead")
    arn = follow(world, "sqs", QUEUE + "q", RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))
    publish(world)
    assert world.counts(url)[0] == 1
    world("sqs", "DeleteQueue", QueueUrl=url)
    publish(world, "lost", MessageAttributes={"a": {"DataType": "String", "StringValue": "x"}})
    body = json.loads(world.receive(dead_url)[0]["Body"])
    assert body["Message"] == "lost" and body["UnsubscribeURL"].endswith(arn)
    world.machine.meter.take()
    world("sns", "SetSubscriptionAttributes", SubscriptionArn=arn, AttributeName="RedrivePolicy", AttributeValue="")
    publish(world, "gone")
    assert world.counts(dead_url) == (0, 1, 0)
    assert metrics(world)["NumberOfNotificationsFailed"] == 1


def test_raw_delivery_of_more_than_ten_attributes_is_a_dead_letter(world):
    url, _ = world.queue("q")
    dead_url, dead = world.queue("dead")
    follow(world, "sqs", QUEUE + "q", RawMessageDelivery="true",
           RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))  # fmt: skip
    attributes = {f"a{index}": {"DataType": "String", "StringValue": "x"} for index in range(11)}
    publish(world, "too many", MessageAttributes=attributes)
    assert world.counts(url)[0] == 0 and world.receive(dead_url)[0]["Body"] == "too many"


def test_a_fifo_queue_that_is_gone_is_a_fifo_dead_letter_in_order(world):
    world("sns", "CreateTopic", Name="t.fifo", Attributes={"FifoTopic": "true", "ContentBasedDeduplication": "true"})
    url, _ = world.queue("dead.fifo", FifoQueue="true")
    redrive = json.dumps({"deadLetterTargetArn": QUEUE + "dead.fifo"})
    world("sns", "Subscribe", TopicArn=TOPIC + ".fifo", Protocol="sqs", Endpoint=QUEUE + "none.fifo",
          Attributes={"RedrivePolicy": redrive, "RawMessageDelivery": "true"})  # fmt: skip
    for text in "abc":
        world("sns", "Publish", TopicArn=TOPIC + ".fifo", Message=text, MessageGroupId="g")
    world.settle()
    assert [message["Body"] for message in world.receive(url)] == ["a", "b", "c"]


def test_a_queue_of_another_region_gets_its_message(world):
    world.scope = Scope(region="eu-west-1")
    url = world("sqs", "CreateQueue", QueueName="far")["QueueUrl"]
    world.scope = Scope()
    follow(world, "sqs", "arn:aws:sqs:eu-west-1:000000000000:far", RawMessageDelivery="true")
    publish(world, "over there")
    world.scope = Scope(region="eu-west-1")
    assert world.receive(url)[0]["Body"] == "over there"


def test_a_bucket_tells_a_queue_by_way_of_a_topic():
    world = TriggerWorld(build_sns, build_s3)
    world("sns", "CreateTopic", Name="t")
    url, arn = world.queue("q")
    follow(world, "sqs", arn)
    world("s3", "CreateBucket", Bucket="sns-bucket")
    wanted = {"TopicConfigurations": [{"TopicArn": TOPIC, "Events": ["s3:ObjectCreated:*"]}]}
    world("s3", "PutBucketNotificationConfiguration", Bucket="sns-bucket", NotificationConfiguration=wanted)
    world("s3", "PutObject", Bucket="sns-bucket", Key="k", Body=b"x")
    world.settle()
    documents = [json.loads(message["Body"]) for message in world.receive(url)]
    assert {document["Subject"] for document in documents} == {"Amazon S3 Notification"}
    told = [json.loads(document["Message"]) for document in documents]
    assert [one.get("Event") for one in told] == ["s3:TestEvent", None]
    assert told[1]["Records"][0]["s3"]["object"]["key"] == "k"
    assert world.defects == []


def test_the_trace_header_goes_with_the_message(world):
    world.create()
    url, arn = world.queue("q")
    follow(world, "sqs", arn)
    follow(world, "lambda", FUNCTION)
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    request = HttpRequest("POST", "/", {"x-amzn-trace-id": trace})
    world.machine.submit("sns", "Publish", {"TopicArn": TOPIC, "Message": "m"}, lambda reply: None, request=request)
    world.settle()
    params = {"QueueUrl": url, "MessageSystemAttributeNames": ["AWSTraceHeader"], "WaitTimeSeconds": 0}
    got = world("sqs", "ReceiveMessage", **params)
    assert got["Messages"][0]["Attributes"]["AWSTraceHeader"] == trace
    assert world.executor.started[0].trace_id.startswith("Root=1-5759e988-bd862e3fe1be46a994272793")


# -- web endpoints ----------------------------------------------------------------------------------------------------


def test_an_endpoint_confirms_and_then_gets_signed_notifications(world, endpoint):
    arn = follow(world, "http", endpoint.url)
    publish(world, "too early")
    (headers, body), = endpoint.posts
    asked = json.loads(body)
    assert headers["x-amz-sns-message-type"] == asked["Type"] == "SubscriptionConfirmation"
    assert headers["Content-Type"] == "text/plain; charset=UTF-8" and "x-amz-sns-subscription-arn" not in headers
    assert headers["User-Agent"] == "Amazon Simple Notification Service Agent"
    assert asked["Message"].startswith(f"You have chosen to subscribe to the topic {TOPIC}.\n")
    verify(world, asked)
    link = {name: value[0] for name, value in parse_qs(urlsplit(asked["SubscribeURL"]).query).items()}
    assert link == {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": asked["Token"]}
    assert as_nobody(world, "ConfirmSubscription", TopicArn=TOPIC, Token=asked["Token"]) == {"SubscriptionArn": arn}
    values = world("sns", "GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]
    assert (values["PendingConfirmation"], values["ConfirmationWasAuthenticated"]) == ("false", "false")
    publish(world, "hello", Subject="s")
    headers, body = endpoint.posts[-1]
    assert headers["x-amz-sns-message-type"] == "Notification" and headers["x-amz-sns-subscription-arn"] == arn
    assert headers["x-amz-sns-topic-arn"] == TOPIC
    assert headers["x-amz-sns-message-id"] == json.loads(body)["MessageId"]
    verify(world, json.loads(body))


def test_the_second_signature_version(world, endpoint):
    world("sns", "SetTopicAttributes", TopicArn=TOPIC, AttributeName="SignatureVersion", AttributeValue="2")
    confirmed(world, endpoint)
    publish(world)
    document = json.loads(endpoint.posts[-1][1])
    assert document["SignatureVersion"] == "2"
    verify(world, document)


def test_raw_delivery_with_a_content_type_and_a_password(world, endpoint):
    policy = {"requestPolicy": {"headerContentType": "application/xml"}}
    target = f"http://me:secret@{endpoint.address}/hook"
    arn = follow(world, "http", target, RawMessageDelivery="true", DeliveryPolicy=json.dumps(policy))
    world.settle()
    headers, body = endpoint.posts.pop()
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()
    as_nobody(world, "ConfirmSubscription", TopicArn=TOPIC, Token=json.loads(body)["Token"])
    publish(world, "<m/>")
    headers, body = endpoint.posts[-1]
    assert body == "<m/>" and headers["Content-Type"] == "application/xml"
    assert headers["x-amz-sns-rawdelivery"] == "true" and headers["Host"] == endpoint.address
    shown = world("sns", "GetSubscriptionAttributes", SubscriptionArn=arn)["Attributes"]["Endpoint"]
    assert shown == f"http://me:****@{endpoint.address}/hook"


def test_an_endpoint_in_trouble_is_tried_again_as_its_policy_says(world, endpoint):
    retries = {"minDelayTarget": 2, "maxDelayTarget": 8, "numRetries": 4, "numNoDelayRetries": 1,
               "numMinDelayRetries": 1, "numMaxDelayRetries": 1, "backoffFunction": "linear"}  # fmt: skip
    url, dead = world.queue("dead")
    confirmed(world, endpoint, DeliveryPolicy=json.dumps({"healthyRetryPolicy": retries}),
              RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))  # fmt: skip
    endpoint.answers += [500, 503, 429, 500, 500]
    publish(world, "m")
    assert len(endpoint.posts) == 2
    for seconds, posts in ((1.9, 2), (0.1, 3), (1.9, 3), (0.1, 4), (7.9, 4), (0.1, 5)):
        world.advance(seconds)
        assert len(endpoint.posts) == posts, seconds
    assert json.loads(world.receive(url)[0]["Body"])["Message"] == "m"
    assert metrics(world)["NumberOfNotificationsRedrivenToDlq"] == 1


def test_an_endpoint_that_refuses_is_not_asked_again(world, endpoint):
    url, dead = world.queue("dead")
    confirmed(world, endpoint, RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))
    endpoint.answers.append(403)
    publish(world)
    assert world.counts(url)[0] == 1 and len(endpoint.posts) == 1


def test_the_default_policy_tries_three_times_more_after_twenty_seconds_each(world, endpoint):
    confirmed(world, endpoint)
    endpoint.answers += [500] * 4
    publish(world)
    world.advance(59.9)
    assert len(endpoint.posts) == 3
    world.advance(10_000)
    assert len(endpoint.posts) == 4 and world.db.value("SELECT count(*) FROM due") == 0


def test_an_endpoint_gets_no_more_a_second_than_it_wants(world, endpoint):
    confirmed(world, endpoint, DeliveryPolicy='{"throttlePolicy": {"maxReceivesPerSecond": 2}}')
    for _ in range(5):
        publish(world)
    seen = [len(endpoint.posts)]
    for _ in range(4):
        world.advance(0.5)
        seen.append(len(endpoint.posts))
    assert seen == [1, 2, 3, 4, 5]


def test_a_topics_policy_is_the_default_of_its_subscriptions(world):
    topic = {"http": {"defaultHealthyRetryPolicy": {"numRetries": 7}, "disableSubscriptionOverrides": False}}
    own = '{"healthyRetryPolicy": {"numRetries": 9}}'
    assert effective_policy(json.dumps(topic), None)["healthyRetryPolicy"]["numRetries"] == 7
    assert http_ladder(effective_policy(json.dumps(topic), own)).max_attempts == 10
    topic["http"]["disableSubscriptionOverrides"] = True
    assert http_ladder(effective_policy(json.dumps(topic), own)).max_attempts == 8
    assert MANAGED.max_attempts == 1 + 100_015


# -- links ------------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_leaves_by_its_link_may_come_back(world, endpoint):
    arn = confirmed(world, endpoint)
    assert as_nobody(world, "Unsubscribe", SubscriptionArn=arn) == {}
    document = json.loads(endpoint.posts[-1][1])
    assert document["Type"] == "UnsubscribeConfirmation" and "deactivate subscription" in document["Message"]
    verify(world, document)
    publish(world)
    values = world("sns", "GetTopicAttributes", TopicArn=TOPIC)["Attributes"]
    assert len(endpoint.posts) == 1 and values["SubscriptionsDeleted"] == "1"
    as_nobody(world, "ConfirmSubscription", TopicArn=TOPIC, Token=document["Token"])
    publish(world)
    assert len(endpoint.posts) == 2


def test_an_owner_who_ends_a_subscription_ends_it(world, endpoint):
    arn = confirmed(world, endpoint)
    world("sns", "Unsubscribe", SubscriptionArn=arn)
    world.settle()
    assert endpoint.posts == [] and world("sns", "ListSubscriptions")["Subscriptions"] == []


def test_a_guarded_subscription_is_not_ended_by_its_link(world, endpoint):
    arn = follow(world, "http", endpoint.url)
    world.settle()
    token = json.loads(endpoint.posts[-1][1])["Token"]
    world("sns", "ConfirmSubscription", TopicArn=TOPIC, Token=token, AuthenticateOnUnsubscribe="true")
    refused = as_nobody(world, "Unsubscribe", SubscriptionArn=arn)
    assert (refused.code, refused.status) == ("AuthorizationError", 403)
    assert world("sns", "Unsubscribe", SubscriptionArn=arn) == {}


def test_mails_are_in_the_outbox(world):
    answer = world("sns", "Subscribe", TopicArn=TOPIC, Protocol="email", Endpoint="a@b.c")
    assert answer == {"SubscriptionArn": "pending confirmation"}
    follow(world, "email-json", "d@e.f")
    outbox = world.machine.services["sns"].outbox
    for mail in outbox():
        assert mail["subject"] == "AWS Notification - Subscription Confirmation"
        token = mail["body"].partition("&Token=")[2][:288]
        as_nobody(world, "ConfirmSubscription", TopicArn=TOPIC, Token=token)
    publish(world, "news", Subject="Today")
    formal, plain = outbox()[:2]
    assert (plain["recipient"], plain["subject"]) == ("a@b.c", "Today") and plain["body"].startswith("news\n")
    assert "Action=Unsubscribe" in plain["body"]
    verify(world, json.loads(formal["body"]))


# -- policies ---------------------------------------------------------------------------------------------------------


def test_a_queue_has_to_let_the_topic_in_when_policies_are_enforced(world):
    url, arn = world.queue("q")
    dead_url, dead = world.queue("dead")
    world.machine.authorizer = lambda ctx, service, operation, params: None
    follow(world, "sqs", arn, RawMessageDelivery="true", RedrivePolicy=json.dumps({"deadLetterTargetArn": dead}))

    def let_in(url, target, source):
        statement = {
            "Effect": "Allow", "Principal": {"Service": "sns.amazonaws.com"}, "Action": "sqs:SendMessage",
            "Resource": target, "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        }  # fmt: skip
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        world("sqs", "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": policy})

    let_in(dead_url, dead, TOPIC)
    publish(world, "shut out")
    assert world.counts(url)[0] == 0 and world.receive(dead_url)[0]["Body"] == "shut out"
    let_in(url, arn, TOPIC + "-other")
    publish(world, "another topic's")
    assert world.counts(url)[0] == 0
    let_in(url, arn, TOPIC)
    publish(world, "let in")
    assert world.receive(url)[0]["Body"] == "let in"
