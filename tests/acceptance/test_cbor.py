"""smithy-rpc-v2-cbor through botocore's own client: services that have it, and others made to speak it."""

import json

import botocore.loaders
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


@pytest.fixture
def cbor(aws, tmp_path):
    """`cbor(service)`: a client that sends and reads CBOR; `cbor.seen` the requests it sent."""
    session = botocore.session.Session()
    models = session.get_component("data_loader")
    session.register_component("data_loader", botocore.loaders.Loader(extra_search_paths=[str(tmp_path)]))
    seen = []

    def client(service: str):
        model = models.load_service_model(service, "service-2")
        model["metadata"] |= {"protocol": "smithy-rpc-v2-cbor", "protocols": ["smithy-rpc-v2-cbor"]}
        folder = tmp_path / service / models.determine_latest_version(service, "service-2")
        folder.mkdir(parents=True)
        (folder / "service-2.json").write_text(json.dumps(model))
        made = session.create_client(
            service, endpoint_url=aws.endpoint, region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test", config=Config(retries={"max_attempts": 0}),
        )  # fmt: skip
        made.meta.events.register("before-send", lambda request, **rest: seen.append(request))
        return made

    client.seen = seen
    return client


def test_queues(cbor):
    sqs = cbor("sqs")
    url = sqs.create_queue(QueueName="cbor", Attributes={"VisibilityTimeout": "9"})["QueueUrl"]
    request = cbor.seen[-1]
    assert request.url.endswith("/service/AmazonSQS/operation/CreateQueue")
    assert request.headers["smithy-protocol"] in (b"rpc-v2-cbor", "rpc-v2-cbor")
    value = {"raw": {"BinaryValue": b"\x00\xff", "DataType": "Binary"}}
    sqs.send_message(QueueUrl=url, MessageBody="häy", MessageAttributes=value)
    got = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"][0]
    assert got["Body"] == "häy" and got["MessageAttributes"]["raw"]["BinaryValue"] == b"\x00\xff"
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"] == {
        "VisibilityTimeout": "9"
    }
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    with pytest.raises(ClientError) as caught:
        sqs.get_queue_url(QueueName="cbor-nowhere")
    assert caught.value.response["Error"]["Message"] == "The specified queue does not exist."
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_tables_with_times_numbers_and_bytes(cbor):
    table = {"TableName": "cbor"}
    dynamodb = cbor("dynamodb")
    made = dynamodb.create_table(
        **table, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
    )["TableDescription"]  # fmt: skip
    assert made["CreationDateTime"].tzinfo is not None
    item = {"pk": {"S": "a"}, "n": {"N": "12345678901234567890.5"}, "b": {"B": b"\x00\x01"}, "none": {"NULL": True},
            "deep": {"M": {"list": {"L": [{"BOOL": False}, {"SS": ["x"]}]}}}}  # fmt: skip
    dynamodb.put_item(**table, Item=item)
    answer = dynamodb.get_item(**table, Key={"pk": {"S": "a"}}, ReturnConsumedCapacity="TOTAL")
    assert answer["Item"] == item and answer["ConsumedCapacity"]["CapacityUnits"] == 0.5
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException) as caught:
        dynamodb.put_item(**table, Item=item, ConditionExpression="attribute_not_exists(pk)")
    assert caught.value.response["Error"]["Message"] == "The conditional request failed"


def test_broken_cbor_is_refused(aws):
    headers = {"smithy-protocol": "rpc-v2-cbor", "Content-Type": "application/cbor", "Accept": "application/cbor"}
    path = "/service/AmazonSQS/operation/ListQueues"
    status, answer, body = aws.get(path, "POST", b"\xa1\x61", headers)
    assert (status, answer["smithy-protocol"]) == (400, "rpc-v2-cbor") and b"SerializationException" in body
    status, _, body = aws.get(path.replace("ListQueues", "Nothing"), "POST", b"\xa0", headers)
    assert status in (400, 404) and b"UnknownOperationException" in body


def test_a_service_of_aws_that_is_not_here_says_so(aws):
    """CloudWatch speaks CBOR by default; until it is here, its clients get an AWS error."""
    cloudwatch = aws.client("cloudwatch")
    if "cloudwatch" in implemented():
        assert "Metrics" in cloudwatch.list_metrics(Namespace="none")
        return
    with pytest.raises(ClientError) as caught:
        cloudwatch.list_metrics()
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def implemented() -> set[str]:
    from preheat.services.table import BUILT_BY_APP, SERVICES

    return {*SERVICES, *BUILT_BY_APP}
