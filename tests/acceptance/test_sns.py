"""SNS over a socket: boto3, real endpoints, real functions, the links that people follow, a server that dies."""

import base64
import json
import urllib.request

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.acceptance.test_iam_enforced import EnforcedServer
from tests.support.endpoint import Endpoint
from tests.support.functions import ROLE, make_zip
from tests.support.server import wait_for

COPY = """
import boto3, json, os

def handler(event, context):
    boto3.client("sqs").send_message(QueueUrl=os.environ["TARGET"], MessageBody=json.dumps(event))
"""


@pytest.fixture
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def check_signature(document):
    """The notification's signature, by the certificate that its own SigningCertURL leads to."""
    certificate = x509.load_pem_x509_certificate(get(document["SigningCertURL"]).encode())
    names = ["Message", "MessageId", *(["Subject"] if "Subject" in document else []), "Timestamp", "TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in names)
    digest = {"1": hashes.SHA1(), "2": hashes.SHA256()}[document["SignatureVersion"]]
    signature = base64.b64decode(document["Signature"])
    certificate.public_key().verify(signature, text.encode(), padding.PKCS1v15(), digest)


class Pair:
    """A topic and a queue that follows it."""

    def __init__(self, server, name, topic=None, queue=None, **attributes):
        self.sns, self.sqs = server.client("sns"), server.client("sqs")
        self.topic = self.sns.create_topic(Name=name, Attributes=topic or {})["TopicArn"]
        self.url = self.sqs.create_queue(QueueName=name, Attributes=queue or {})["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:000000000000:{name}"
        self.subscription = self.sns.subscribe(
            TopicArn=self.topic, Protocol="sqs", Endpoint=self.arn, Attributes=attributes
        )["SubscriptionArn"]

    def receive(self, wait=5):
        found = self.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=wait, MessageAttributeNames=["All"]
        )
        return found.get("Messages", [])


def test_a_message_reaches_a_queue_signed(aws):
    pair = Pair(aws, "acc-signed")
    sent = pair.sns.publish(TopicArn=pair.topic, Message="hello", Subject="s", MessageAttributes={
        "n": {"DataType": "Number", "StringValue": "5"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
    })  # fmt: skip
    document = json.loads(pair.receive()[0]["Body"])
    assert (document["MessageId"], document["Message"]) == (sent["MessageId"], "hello")
    assert document["MessageAttributes"]["b"] == {"Type": "Binary", "Value": "AAE="}
    check_signature(document)
    pair.sns.set_topic_attributes(TopicArn=pair.topic, AttributeName="SignatureVersion", AttributeValue="2")
    pair.sns.publish(TopicArn=pair.topic, Message="again")
    second = json.loads(pair.receive()[0]["Body"])
    assert second["SignatureVersion"] == "2"
    check_signature(second)


def test_errors_are_those_of_botocores_model(aws):
    sns = aws.client("sns")
    missing = "arn:aws:sns:us-east-1:000000000000:nowhere"
    with pytest.raises(sns.exceptions.NotFoundException) as caught:
        sns.publish(TopicArn=missing, Message="m")
    assert caught.value.response["Error"] == {"Type": "Sender", "Code": "NotFound", "Message": "Topic does not exist"}
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    pair = Pair(aws, "acc-errors")
    with pytest.raises(sns.exceptions.InvalidParameterException):
        sns.publish(TopicArn=pair.topic, Message="")
    with pytest.raises(sns.exceptions.InvalidParameterValueException):
        sns.publish(TopicArn=pair.topic, Message="m",
                    MessageAttributes={"a": {"DataType": "Nope", "StringValue": "x"}})  # fmt: skip
    entries = [{"Id": "a", "Message": "m"}] * 2
    with pytest.raises(sns.exceptions.BatchEntryIdsNotDistinctException):
        sns.publish_batch(TopicArn=pair.topic, PublishBatchRequestEntries=entries)
    with pytest.raises(sns.exceptions.ResourceNotFoundException):
        sns.tag_resource(ResourceArn=missing, Tags=[{"Key": "a", "Value": "b"}])
    with pytest.raises(ClientError) as caught:
        sns.get_sms_sandbox_account_status()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_a_batch_and_filters(aws):
    pair = Pair(aws, "acc-batch", RawMessageDelivery="true", FilterPolicy='{"kind": [{"prefix": "or"}]}')
    kinds = {name: {"kind": {"DataType": "String", "StringValue": name}} for name in ("order", "return")}
    answer = pair.sns.publish_batch(TopicArn=pair.topic, PublishBatchRequestEntries=[
        {"Id": "1", "Message": "yes", "MessageAttributes": kinds["order"]},
        {"Id": "2", "Message": "no", "MessageAttributes": kinds["return"]},
        {"Id": "3", "Message": "no"},
        {"Id": "4", "Message": ""},
    ])  # fmt: skip
    assert [one["Id"] for one in answer["Successful"]] == ["1", "2", "3"]
    assert [(one["Id"], one["Code"]) for one in answer["Failed"]] == [("4", "InvalidParameter")]
    message, = pair.receive()
    assert message["Body"] == "yes" and message["MessageAttributes"]["kind"]["StringValue"] == "order"
    attributes = pair.sns.get_subscription_attributes(SubscriptionArn=pair.subscription)["Attributes"]
    assert attributes["FilterPolicyScope"] == "MessageAttributes"


def test_fifo(aws):
    fifo = {"FifoTopic": "true", "ContentBasedDeduplication": "true"}
    pair = Pair(aws, "acc-order.fifo", fifo, {"FifoQueue": "true"}, RawMessageDelivery="true")
    for text in ("1", "2", "2", "3"):
        pair.sns.publish(TopicArn=pair.topic, Message=text, MessageGroupId="g")
    assert [message["Body"] for message in pair.receive()] == ["1", "2", "3"]


def test_a_function_runs_for_each_message(aws):
    sns, sqs, functions = aws.client("sns"), aws.client("sqs"), aws.client("lambda")
    target = sqs.create_queue(QueueName="acc-function-out")["QueueUrl"]
    arn = functions.create_function(
        FunctionName="acc-on-topic", Runtime="python3.11", Handler="app.handler", Role=ROLE, Timeout=20,
        Code={"ZipFile": make_zip({"app.py": COPY})}, Environment={"Variables": {"TARGET": target}},
    )["FunctionArn"]  # fmt: skip
    topic = sns.create_topic(Name="acc-function")["TopicArn"]
    subscription = sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=arn)["SubscriptionArn"]
    sns.publish(TopicArn=topic, Message="run")
    found = sqs.receive_message(QueueUrl=target, WaitTimeSeconds=20)["Messages"]
    record, = json.loads(found[0]["Body"])["Records"]
    assert record["EventSubscriptionArn"] == subscription and record["Sns"]["Message"] == "run"


def test_a_web_endpoint_confirms_by_link_and_leaves_by_link(aws, endpoint):
    sns = aws.client("sns")
    topic = sns.create_topic(Name="acc-web")["TopicArn"]
    answer = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url)
    assert answer["SubscriptionArn"] == "pending confirmation"
    wait_for(lambda: endpoint.posts, what="the confirmation")
    asked = json.loads(endpoint.posts.pop()[1])
    text = get(asked["SubscribeURL"])
    listed, = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert f"<SubscriptionArn>{listed['SubscriptionArn']}</SubscriptionArn>" in text
    sns.publish(TopicArn=topic, Message="posted")
    wait_for(lambda: endpoint.posts, what="the notification")
    headers, body = endpoint.posts.pop()
    document = json.loads(body)
    assert headers["x-amz-sns-message-type"] == "Notification"
    check_signature(document)
    assert "UnsubscribeResponse" in get(document["UnsubscribeURL"])
    wait_for(lambda: endpoint.posts, what="the last message")
    assert json.loads(endpoint.posts.pop()[1])["Type"] == "UnsubscribeConfirmation"
    assert sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"] == []
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(asked["SubscribeURL"].replace("Token=", "Token=0"))
    caught.value.close()
    assert caught.value.code == 400


def test_mails_and_text_messages_are_shown(aws):
    sns = aws.client("sns")
    topic = sns.create_topic(Name="acc-mail")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="reader@example.com")
    sns.publish(PhoneNumber="+15550009999", Message="a code")
    text, mail = json.loads(aws.get("/_preheat/outbox")[2])["messages"][:2]
    assert (text["protocol"], text["recipient"], text["body"]) == ("sms", "+15550009999", "a code")
    assert (mail["protocol"], mail["recipient"]) == ("email", "reader@example.com")
    get(mail["body"].split()[-1])
    sns.publish(TopicArn=topic, Message="news", Subject="Today")
    shown = json.loads(aws.get("/_preheat/console/overview")[2])["outbox"]
    assert (shown[0]["subject"], shown[0]["recipient"]) == ("Today", "reader@example.com")


def test_nothing_published_is_lost_when_the_server_dies(fresh_server, endpoint):
    server = fresh_server()
    pair = Pair(server, "durable", RawMessageDelivery="true")
    pair.sns.subscribe(TopicArn=pair.topic, Protocol="http", Endpoint=endpoint.url,
                       Attributes={"RawMessageDelivery": "true"})  # fmt: skip
    wait_for(lambda: endpoint.posts, what="the confirmation")
    get(json.loads(endpoint.posts.pop()[1])["SubscribeURL"])
    for index in range(20):
        pair.sns.publish(TopicArn=pair.topic, Message=f"m{index}")
    server.kill()
    server.start()
    expected = {f"m{index}" for index in range(20)}
    wait_for(lambda: {body for _, body in endpoint.posts} == expected, what="all posts")
    got = set()
    while len(got) < 20:
        messages = pair.receive()
        assert messages, got
        got |= {message["Body"] for message in messages}
    assert got == expected


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Topic:
    Type: AWS::SNS::Topic
    Properties:
      DisplayName: from a template
      Subscription:
        - {Protocol: sqs, Endpoint: !GetAtt Copies.Arn}
  Copies: {Type: AWS::SQS::Queue}
  Out: {Type: AWS::SQS::Queue}
  Dead: {Type: AWS::SQS::Queue}
  Policy:
    Type: AWS::SNS::TopicPolicy
    Properties:
      Topics: [!Ref Topic]
      PolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {Effect: Allow, Principal: {Service: s3.amazonaws.com}, Action: sns:Publish, Resource: !Ref Topic}
  Handler:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.11
      Handler: index.handler
      Timeout: 20
      InlineCode: |
        import boto3, json, os
        def handler(event, context):
            boto3.client("sqs").send_message(QueueUrl=os.environ["OUT"], MessageBody=event["Records"][0]["Sns"]["Message"])
      Environment: {Variables: {OUT: !Ref Out}}
      Policies: [{SQSSendMessagePolicy: {QueueName: !GetAtt Out.QueueName}}]
      Events:
        Orders:
          Type: SNS
          Properties:
            Topic: !Ref Topic
            FilterPolicy: {kind: [order]}
            RedrivePolicy: {deadLetterTargetArn: !GetAtt Dead.Arn}
Outputs:
  Topic: {Value: !Ref Topic}
  Name: {Value: !GetAtt Topic.TopicName}
  Out: {Value: !Ref Out}
  Copies: {Value: !Ref Copies}
"""  # noqa: E501


def test_a_serverless_template_with_a_topic(aws):
    stacks, sns, sqs = aws.client("cloudformation"), aws.client("sns"), aws.client("sqs")
    parameters = {"StackName": "acc-sns", "TemplateBody": TEMPLATE, "Capabilities": ["CAPABILITY_IAM",
                  "CAPABILITY_AUTO_EXPAND"]}  # fmt: skip
    stacks.create_stack(**parameters)
    wait_for(
        lambda: stacks.describe_stacks(StackName="acc-sns")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE",
        60, "the stack",
    )  # fmt: skip
    outputs = {
        one["OutputKey"]: one["OutputValue"]
        for one in stacks.describe_stacks(StackName="acc-sns")["Stacks"][0]["Outputs"]
    }
    assert outputs["Topic"].endswith(f":{outputs['Name']}")
    attributes = sns.get_topic_attributes(TopicArn=outputs["Topic"])["Attributes"]
    assert attributes["DisplayName"] == "from a template" and "s3.amazonaws.com" in attributes["Policy"]
    sns.publish(TopicArn=outputs["Topic"], Message="not for the function")
    sns.publish(TopicArn=outputs["Topic"], Message="an order",
                MessageAttributes={"kind": {"DataType": "String", "StringValue": "order"}})  # fmt: skip
    got = sqs.receive_message(QueueUrl=outputs["Out"], WaitTimeSeconds=20)["Messages"]
    assert [message["Body"] for message in got] == ["an order"]
    copies = sqs.receive_message(QueueUrl=outputs["Copies"], WaitTimeSeconds=5, MaxNumberOfMessages=10)["Messages"]
    assert len(copies) == 2
    changed = TEMPLATE.replace("from a template", "changed").replace("kind: [order]", "kind: [return]")
    stacks.update_stack(**{**parameters, "TemplateBody": changed})
    wait_for(
        lambda: stacks.describe_stacks(StackName="acc-sns")["Stacks"][0]["StackStatus"] == "UPDATE_COMPLETE",
        60, "the update",
    )  # fmt: skip
    assert sns.get_topic_attributes(TopicArn=outputs["Topic"])["Attributes"]["DisplayName"] == "changed"
    found = sns.list_subscriptions_by_topic(TopicArn=outputs["Topic"])["Subscriptions"]
    own, = [one for one in found if one["Protocol"] == "lambda"]
    policy = sns.get_subscription_attributes(SubscriptionArn=own["SubscriptionArn"])["Attributes"]["FilterPolicy"]
    assert json.loads(policy) == {"kind": ["return"]}
    stacks.delete_stack(StackName="acc-sns")

    def gone():
        try:
            sns.get_topic_attributes(TopicArn=outputs["Topic"])
        except sns.exceptions.NotFoundException:
            return True

    wait_for(gone, what="the deletion")


def test_links_need_no_credentials_when_policies_are_enforced(tmp_path, endpoint):
    server = EnforcedServer(tmp_path / "state").start()
    try:
        sns = server.client("sns")
        topic = sns.create_topic(Name="guarded")["TopicArn"]
        arn = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint.url, ReturnSubscriptionArn=True)
        wait_for(lambda: endpoint.posts, what="the confirmation")
        assert arn["SubscriptionArn"] in get(json.loads(endpoint.posts.pop()[1])["SubscribeURL"])
        sns.publish(TopicArn=topic, Message="posted")
        wait_for(lambda: endpoint.posts, what="the notification")
        document = json.loads(endpoint.posts.pop()[1])
        check_signature(document)
        get(document["UnsubscribeURL"])
        assert sns.list_subscriptions()["Subscriptions"] == []
        for path in ("/?Action=ListTopics&Version=2010-03-31", "/_preheat/outbox"):
            assert server.get(path)[0] in (403, 404)
    finally:
        assert server.stop() == 0
    assert "defect in" not in server.log.read_text()
