"""`preheat serve --iam enforce`: the first credentials, callers, function URLs, and the RAG stack with the permissions
that its template declares."""

import io
import json
import stat
import zipfile

import boto3
import pytest
from botocore import UNSIGNED
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.support.rag import RagStack
from tests.support.server import LiveServer, wait_for
from tests.support.websocket import Client, Refused

ACCOUNT = "000000000000"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
HANDLER = """
import json
def handler(event, context):
    who = event["requestContext"].get("authorizer", {}).get("iam", {}).get("userArn")
    return {"statusCode": 200, "body": json.dumps({"who": who})}
"""


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action, resource="*"):
    return {"Effect": "Allow", "Action": action, "Resource": resource}


class EnforcedServer(LiveServer):
    """A server that enforces policies; its clients are the root user's unless credentials are given."""

    def __init__(self, state):
        super().__init__(state, "--iam", "enforce")

    def root(self):
        lines = (self.state / "root-credentials").read_text().splitlines()
        return [line.partition("=")[2] for line in lines]

    def _session(self, key=None, secret=None, token=None):
        key, secret = (key, secret) if key else self.root()
        return boto3.Session(key, secret, token, region_name="us-east-1")

    def client(self, service, credentials=(), **config):
        settings = {"retries": {"max_attempts": 0}, "read_timeout": 60, **config}
        return self._session(*credentials).client(service, endpoint_url=self.endpoint, config=Config(**settings))

    def resource(self, service):
        return self._session().resource(service, endpoint_url=self.endpoint)

    def user(self, name, *statements):
        """A user's credentials."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def role(self, name, *statements, trust=TRUST):
        iam = self.client("iam")
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
        return arn

    def function(self, name, role):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("main.py", HANDLER)
        made = self.client("lambda").create_function(
            FunctionName=name, Runtime="python3.11", Role=role, Handler="main.handler",
            Code={"ZipFile": packed.getvalue()}, Timeout=10,
        )  # fmt: skip
        return made["FunctionArn"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = EnforcedServer(tmp_path_factory.mktemp("enforced") / "state").start()
    yield made
    assert made.stop() == 0, made.log.read_text()[-4000:]
    assert "defect in" not in made.log.read_text(), made.log.read_text()[-4000:]


def refused(code, status, call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), answer
    return answer["Error"]["Message"]


# -- credentials ------------------------------------------------------------------------------------------------------


def test_the_first_credentials_lie_in_a_file_of_the_owner(server):
    path = server.state / "root-credentials"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert str(path) in server.log.read_text()


def test_the_same_credentials_after_a_restart(tmp_path):
    server = EnforcedServer(tmp_path / "state").start()
    before = server.root()
    server.kill()
    (server.state / "root-credentials").unlink()
    server.start()
    assert server.root() == before
    assert server.client("sts").get_caller_identity()["Account"] == ACCOUNT
    assert server.stop() == 0


def test_unknown_credentials_are_refused(server):
    key, secret = server.root()
    refused("InvalidClientTokenId", 403, server.client("sts", ("AKIAUNKNOWN", "x")).get_caller_identity)
    refused("SignatureDoesNotMatch", 403, server.client("sts", (key, secret + "x")).get_caller_identity)


def test_a_user_may_do_what_its_policy_allows(server):
    bucket = "enforced-bucket"
    server.client("s3").create_bucket(Bucket=bucket)
    s3 = server.client("s3", server.user("writer", allow("s3:PutObject", f"arn:aws:s3:::{bucket}/in/*")))
    s3.put_object(Bucket=bucket, Key="in/a", Body=b"x")
    message = refused("AccessDenied", 403, s3.put_object, Bucket=bucket, Key="out/a", Body=b"x")
    assert message == (
        f"User: arn:aws:iam::{ACCOUNT}:user/writer is not authorized to perform: s3:PutObject on resource: "
        f'"arn:aws:s3:::{bucket}/out/a" because no identity-based policy allows the s3:PutObject action'
    )
    refused("404", 404, server.client("s3").head_object, Bucket=bucket, Key="out/a")


def test_denials_reach_every_kind_of_client(server):
    keys = server.user("stranger")
    refused("AccessDenied", 403, server.client("sqs", keys).create_queue, QueueName="q")
    refused("AccessDenied", 403, server.client("iam", keys).list_users)
    refused("AccessDenied", 403, server.client("cloudformation", keys).list_stacks)
    refused("AccessDeniedException", 403, server.client("lambda", keys).list_functions)
    refused("AccessDeniedException", 400, server.client("dynamodb", keys).list_tables)
    refused("AccessDeniedException", 403, server.client("s3vectors", keys).list_vector_buckets)
    refused("AccessDeniedException", 403, server.client("apigatewayv2", keys).get_apis)
    refused("AccessDeniedException", 400, server.client("secretsmanager", keys).list_secrets)
    refused("AccessDeniedException", 400, server.client("ssm", keys).describe_parameters)
    refused("AccessDeniedException", 400, server.client("logs", keys).describe_log_groups)
    invoke = server.client("bedrock-runtime", keys).invoke_model
    refused("AccessDeniedException", 403, invoke, modelId="preheat.extractive-v1", body=b"{}")


def test_an_assumed_role_has_the_roles_permissions_within_the_session_policy(server):
    trust = json.loads(json.dumps(TRUST))
    trust["Statement"][0]["Principal"] = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    arn = server.role("operator", allow(["sqs:ListQueues", "sqs:CreateQueue"]), trust=trust)
    stranger = server.user("no-assumer")
    refused("AccessDenied", 403, server.client("sts", stranger).assume_role, RoleArn=arn, RoleSessionName="me")
    sts = server.client("sts", server.user("assumer", allow("sts:AssumeRole", arn)))
    found = sts.assume_role(RoleArn=arn, RoleSessionName="me", Policy=document(allow("sqs:ListQueues")))["Credentials"]
    sqs = server.client("sqs", (found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"]))
    sqs.list_queues()
    message = refused("AccessDenied", 403, sqs.create_queue, QueueName="q")
    assert f"arn:aws:sts::{ACCOUNT}:assumed-role/operator/me" in message and "session policy" in message


def test_a_public_object_is_read_without_credentials(server):
    s3, bucket = server.client("s3"), "public-bucket"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="page", Body=b"hello")
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    message = refused("AccessDenied", 403, s3.put_bucket_policy, Bucket=bucket, Policy=document(statement))
    assert "BlockPublicPolicy" in message
    s3.delete_public_access_block(Bucket=bucket)
    anonymous = boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
    )
    refused("AccessDenied", 403, anonymous.get_object, Bucket=bucket, Key="page")
    s3.put_bucket_policy(Bucket=bucket, Policy=document(statement))
    assert anonymous.get_object(Bucket=bucket, Key="page")["Body"].read() == b"hello"


# -- functions --------------------------------------------------------------------------------------------------------


def signed(server, credentials, url):
    """(status, body) of a GET to a function URL, signed."""
    path = "/_aws/lambda-url/" + url.split("//")[1].split(".")[0] + "/"
    request = AWSRequest("GET", server.endpoint + path)
    SigV4Auth(Credentials(*credentials), "lambda", "us-east-1").add_auth(request)
    status, _, body = server.get(path, headers=dict(request.headers))
    return status, body


def test_a_function_url_with_iam(server):
    arn = server.function("by-url", server.role("by-url-role"))
    url = server.client("lambda").create_function_url_config(FunctionName="by-url", AuthType="AWS_IAM")["FunctionUrl"]
    stranger = server.user("url-stranger")
    caller = server.user("url-caller", allow(["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"], arn))
    path = "/_aws/lambda-url/" + url.split("//")[1].split(".")[0] + "/"
    status, _, body = server.get(path)
    assert status == 403 and b"Forbidden" in body
    assert signed(server, stranger, url)[0] == 403
    status, body = signed(server, caller, url)
    assert status == 200 and json.loads(body) == {"who": f"arn:aws:iam::{ACCOUNT}:user/url-caller"}
    assert signed(server, (caller[0], "wrong"), url)[0] == 403


def test_an_open_function_url_needs_the_functions_policy(server):
    server.function("open-url", server.role("open-url-role"))
    functions = server.client("lambda")
    url = functions.create_function_url_config(FunctionName="open-url", AuthType="NONE")["FunctionUrl"]
    path = "/_aws/lambda-url/" + url.split("//")[1].split(".")[0] + "/"
    assert server.get(path)[0] == 403
    functions.add_permission(
        FunctionName="open-url", StatementId="url", Action="lambda:InvokeFunctionUrl", Principal="*",
        FunctionUrlAuthType="NONE",
    )  # fmt: skip
    assert server.get(path)[0] == 403
    functions.add_permission(
        FunctionName="open-url", StatementId="invoke", Action="lambda:InvokeFunction", Principal="*",
        InvokedViaFunctionUrl=True,
    )  # fmt: skip
    status, _, body = server.get(path)
    assert status == 200 and json.loads(body) == {"who": None}


def test_a_function_policy_lets_a_user_invoke(server):
    server.function("shared", server.role("shared-role"))
    keys = server.user("guest")
    guest = server.client("lambda", keys)
    payload = json.dumps({"requestContext": {}})
    refused("AccessDeniedException", 403, guest.invoke, FunctionName="shared", Payload=payload)
    server.client("lambda").add_permission(
        FunctionName="shared", StatementId="guest", Action="lambda:InvokeFunction",
        Principal=f"arn:aws:iam::{ACCOUNT}:user/guest",
    )  # fmt: skip
    assert guest.invoke(FunctionName="shared", Payload=payload)["StatusCode"] == 200


def test_a_mapping_needs_a_role_that_may_empty_the_queue(server):
    sqs, functions = server.client("sqs"), server.client("lambda")
    url = sqs.create_queue(QueueName="mapped", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    role = server.role("poller", allow("sqs:ReceiveMessage", arn))
    server.function("polled", role)
    mapping = {"EventSourceArn": arn, "FunctionName": "polled"}
    message = refused("InvalidParameterValueException", 400, functions.create_event_source_mapping, **mapping)
    assert message == "The provided execution role does not have permissions to call DeleteMessage on SQS"
    assert functions.list_event_source_mappings(FunctionName="polled")["EventSourceMappings"] == []
    actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
    enough = document(allow(actions, arn))
    server.client("iam").put_role_policy(RoleName="poller", PolicyName="p", PolicyDocument=enough)
    functions.create_event_source_mapping(**mapping)


def test_a_notification_needs_the_queues_policy(server):
    sqs, s3 = server.client("sqs"), server.client("s3")
    url = sqs.create_queue(QueueName="notified")["QueueUrl"]
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:notified"
    s3.create_bucket(Bucket="notifying")
    configuration = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    put = {"Bucket": "notifying", "NotificationConfiguration": configuration}
    message = refused("InvalidArgument", 400, s3.put_bucket_notification_configuration, **put)
    assert message == "Unable to validate the following destination configurations"

    def let_in(bucket):
        statement = {
            **allow("sqs:SendMessage", arn), "Principal": {"Service": "s3.amazonaws.com"},
            "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"}},
        }  # fmt: skip
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document(statement)})

    let_in("another")
    refused("InvalidArgument", 400, s3.put_bucket_notification_configuration, **put)
    let_in("notifying")
    s3.put_bucket_notification_configuration(**put)
    s3.put_object(Bucket="notifying", Key="k", Body=b"x")
    assert wait_for(lambda: sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages"))


def test_a_stack_is_made_with_the_permissions_of_who_deploys_it(server):
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "by-stack"}}
    template = json.dumps({"Resources": {"Queue": queue}})
    keys = server.user("deployer", allow("cloudformation:*"))
    stacks = server.client("cloudformation", keys)
    stacks.create_stack(StackName="denied", TemplateBody=template)

    def ended():
        status = stacks.describe_stacks(StackName="denied")["Stacks"][0]["StackStatus"]
        return None if status.endswith("IN_PROGRESS") else status

    assert wait_for(ended) == "ROLLBACK_COMPLETE"
    events = stacks.describe_stack_events(StackName="denied")["StackEvents"]
    assert any("not authorized to perform: sqs:" in event.get("ResourceStatusReason", "") for event in events)
    assert "QueueUrls" not in server.client("sqs").list_queues(QueueNamePrefix="by-stack")


# -- the RAG stack ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rag(server):
    key, secret = server.root()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        yield RagStack(server)


def test_the_rag_stack_works_with_the_permissions_it_declares(rag):
    rag.put("ships.md", "# Ships\n\nThe harbour of Velm is deepest at the northern quay.")
    events = rag.ask("Where is the harbour of Velm deepest?")
    text = "".join(data["text"] for name, data in events if name == "token")
    retrieval = next(data for name, data in events if name == "retrieval")
    assert "northern quay" in text and retrieval["mode"] == "hybrid", events
    status, _, body = rag.http("QuestionsUrl", "POST", "/questions", {"question": "Where is Velm's harbour deepest?"})
    assert status == 202, body
    job = json.loads(body)["id"]

    def answered():
        found = json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{job}")[2])
        return found if found["status"] in ("done", "answered", "failed") else None

    found = wait_for(answered, what="the answer of the queued question")
    assert found["status"] != "failed" and "northern quay" in json.dumps(found)
    api = rag.outputs["SocketUrl"].removeprefix("ws://").partition(".")[0]
    socket = Client(rag.server.port, f"/_aws/execute-api/{api}/live")
    socket.send({"action": "ask", "question": "Where is the harbour of Velm the deepest?"})
    heard = [socket.json()]
    while heard[-1]["event"] not in ("done", "refused"):
        heard.append(socket.json())
    assert "northern quay" in heard[-1]["answer"], heard
    socket.send({"action": "cancel", "session": "s", "turn": "t"})
    assert socket.json()["event"] == "cancelling"
    socket.close()
    assert rag.remove("ships.md")["status"] == "deleted"
    assert rag.chunks("ships.md") == []
    assert rag.count("IngestDeadLettersUrl") == rag.count("QuestionsDeadLettersUrl") == 0


def test_a_permission_taken_away_is_missed(rag):
    iam = rag.server.client("iam")
    rag.put("trees.md", "# Trees\n\nThe oak of Tarn is nine hundred years old.")
    name = next(role["RoleName"] for role in iam.list_roles()["Roles"] if "AskFunction" in role["RoleName"])
    policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
    kept = iam.get_role_policy(RoleName=name, PolicyName=policies[0])["PolicyDocument"]
    without = [one for one in kept["Statement"] if not any("s3vectors" in action for action in one["Action"])]
    iam.put_role_policy(RoleName=name, PolicyName=policies[0], PolicyDocument=document(*without))
    try:
        said = json.dumps(rag.ask("How old is the oak of Tarn?"))
    finally:
        iam.put_role_policy(RoleName=name, PolicyName=policies[0], PolicyDocument=json.dumps(kept))
    assert "nine hundred" not in said
    assert "nine hundred" in json.dumps(rag.ask("How old is the oak of Tarn?"))


def test_an_http_api_needs_the_functions_permission(rag):
    functions = rag.server.client("lambda")
    names = [one["FunctionName"] for one in functions.list_functions()["Functions"]]
    name = next(one for one in names if "StatusFunction" in one)
    assert rag.http("QuestionsUrl", "GET", "/questions/none")[0] == 404
    statement = json.loads(functions.get_policy(FunctionName=name)["Policy"])["Statement"][0]["Sid"]
    functions.remove_permission(FunctionName=name, StatementId=statement)
    assert rag.http("QuestionsUrl", "GET", "/questions/none")[0] == 500


# -- the connections API ----------------------------------------------------------------------------------------------


def test_managing_connections_takes_a_permission(server):
    gateway = server.client("apigatewayv2")
    api = gateway.create_api(Name="s", ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.a")["ApiId"]
    function = server.function("behind-socket", server.role("socket-function"))
    target = gateway.create_integration(ApiId=api, IntegrationType="AWS_PROXY", IntegrationUri=function)
    for key in ("$connect", "$default"):
        gateway.create_route(ApiId=api, RouteKey=key, Target=f"integrations/{target['IntegrationId']}")
    gateway.create_stage(ApiId=api, StageName="live", AutoDeploy=True)
    path = f"/_aws/execute-api/{api}/live"
    with pytest.raises(Refused) as failure:
        Client(server.port, path)
    assert failure.value.args[0] == 502
    server.client("lambda").add_permission(
        FunctionName="behind-socket", StatementId="api", Action="lambda:InvokeFunction",
        Principal="apigateway.amazonaws.com", SourceArn=f"arn:aws:execute-api:us-east-1:{ACCOUNT}:{api}/live/$connect",
    )  # fmt: skip
    client = Client(server.port, path)
    client.send("for a route that may not be called")
    told = client.json()
    assert told["message"] == "Internal server error"
    connections = f"arn:aws:execute-api:us-east-1:{ACCOUNT}:{api}/live/POST/@connections/*"
    users = {
        "writer": server.user("socket-writer", allow("execute-api:ManageConnections", connections)),
        "reader": server.user("socket-reader", allow("execute-api:Invoke")),
    }

    def post(key, secret):
        made = boto3.client(
            "apigatewaymanagementapi", endpoint_url=server.endpoint + path, region_name="us-east-1",
            aws_access_key_id=key, aws_secret_access_key=secret,
        )  # fmt: skip
        return made.post_to_connection(ConnectionId=told["connectionId"], Data=b"hello")

    key, secret = users["writer"]
    post(key, secret)
    assert client.text() == "hello"
    message = refused("AccessDeniedException", 403, lambda: post(*users["reader"]))
    assert "execute-api:ManageConnections" in message and connections.replace("*", told["connectionId"]) in message
    assert "signature" in refused("InvalidSignatureException", 403, lambda: post(key, "wrong" + secret))
    client.close()
