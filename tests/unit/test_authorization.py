"""The table of actions, and decisions on a machine whose authorizer is set."""

import json
from pathlib import Path

import pytest

from preheat.app import build_machine
from preheat.gateway.actions.table import RULES, needs
from preheat.gateway.authorization import Authorizer
from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import InlineBackground
from preheat.services.contract import Context, Principal
from preheat.settings import Settings
from preheat.simulate.executor import NoExecutor
from preheat.store.database import Database

ACCOUNT = "000000000000"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def policy(*statements, **members):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements) or [members]})


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action, resource="*", **more):
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


class World:
    def __init__(self, directory: Path):
        db, clock, entropy = Database(None), ManualClock(), SeededEntropy(1)
        settings = Settings(state=directory, iam="enforce")
        self.platform = build_machine(
            settings, db, clock, entropy, InlineBackground(), NoExecutor(), lambda notice: None
        )
        self.machine = self.platform.machine
        self.machine.authorizer = Authorizer(self.machine)
        self.defects = []
        self.machine.on_defect = self.defects.append

    def call(self, principal, service, operation, **params):
        replies = []
        extra = {} if principal is None else {"principal": principal, "scope": Scope(principal.account or ACCOUNT)}
        self.machine.submit(service, operation, params, replies.append, **extra)
        for _ in range(100):
            if replies:
                break
            self.machine.tick()
        assert not self.defects, self.defects
        if isinstance(replies[0], AwsError):
            raise replies[0]
        return replies[0].output

    def root(self, service, operation, **params):
        return self.call(None, service, operation, **params)

    def user(self, name, *statements):
        made = self.root("iam", "CreateUser", UserName=name)["User"]
        if statements:
            self.root("iam", "PutUserPolicy", UserName=name, PolicyName="p", PolicyDocument=policy(*statements))
        return Principal(made["Arn"], ACCOUNT, "user", made["UserId"])

    def role(self, name, *statements, trust=None):
        document = json.dumps(trust or TRUST)
        made = self.root("iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument=document)["Role"]
        if statements:
            self.root("iam", "PutRolePolicy", RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
        return made["Arn"]

    def needs(self, service, operation, **params):
        principal = Principal("arn:aws:iam::000000000000:user/u", ACCOUNT, "user")
        ctx = Context(Scope(), 0.0, self.platform.db, principal, "r", self.machine)
        return [(need.action, need.resource) for need in needs(ctx, service, operation, params)]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.platform.db.close()


def refused(code, status, world, principal, service, operation, **params):
    with pytest.raises(AwsError) as caught:
        world.call(principal, service, operation, **params)
    assert (caught.value.code, caught.value.status) == (code, status), caught.value
    return caught.value.message


# -- the table --------------------------------------------------------------------------------------------------------


def test_every_operation_of_every_service_has_a_rule(world):
    missing = [
        f"{name}:{operation}"
        for name, service in world.machine.services.items()
        for operation in service.operations
        if operation not in RULES.get(name, {})
    ]
    assert missing == []


def test_no_rule_is_left_over(world):
    services = world.machine.services
    left = [f"{n}:{o}" for n, rules in RULES.items() for o in rules if o not in services[n].operations]
    assert left == []


def test_an_operation_without_a_rule_is_denied(world):
    user = world.user("u", allow("*"))
    service = world.machine.services["sqs"]
    service.operations["NewOperation"] = service.operations["ListQueues"]
    message = refused("AccessDeniedException", 403, world, user, "sqs", "NewOperation")
    assert "no rule" in message


@pytest.mark.parametrize(
    ("service", "operation", "params", "expected"),
    [
        ("s3", "ListObjectsV2", {"Bucket": "b"}, [("s3:ListBucket", "arn:aws:s3:::b")]),
        ("s3", "HeadBucket", {"Bucket": "b"}, [("s3:ListBucket", "arn:aws:s3:::b")]),
        ("s3", "HeadObject", {"Bucket": "b", "Key": "k/x"}, [("s3:GetObject", "arn:aws:s3:::b/k/x")]),
        (
            "s3", "CopyObject", {"Bucket": "b", "Key": "k", "CopySource": "/src/a%20b"},
            [("s3:GetObject", "arn:aws:s3:::src/a b"), ("s3:PutObject", "arn:aws:s3:::b/k")],
        ),
        (
            "s3", "CopyObject", {"Bucket": "b", "Key": "k", "CopySource": "src/secret?x"},
            [("s3:GetObject", "arn:aws:s3:::src/secret?x"), ("s3:PutObject", "arn:aws:s3:::b/k")],
        ),
        (
            "s3", "DeleteObjects", {"Bucket": "b", "Delete": {"Objects": [{"Key": "1"}, {"Key": "2"}]}},
            [("s3:DeleteObject", "arn:aws:s3:::b/1"), ("s3:DeleteObject", "arn:aws:s3:::b/2")],
        ),
        ("s3", "UploadPart", {"Bucket": "b", "Key": "k"}, [("s3:PutObject", "arn:aws:s3:::b/k")]),
        ("s3", "PutBucketCors", {"Bucket": "b"}, [("s3:PutBucketCORS", "arn:aws:s3:::b")]),
        (
            "sqs", "SendMessageBatch", {"QueueUrl": "http://h/000000000000/q"},
            [("sqs:SendMessage", "arn:aws:sqs:us-east-1:000000000000:q")],
        ),
        (
            "lambda", "InvokeWithResponseStream", {"FunctionName": "f", "Qualifier": "live"},
            [("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:000000000000:function:f:live")],
        ),
        (
            "lambda", "CreateFunction", {"FunctionName": "f", "Role": "arn:aws:iam::000000000000:role/r"},
            [
                ("lambda:CreateFunction", "arn:aws:lambda:us-east-1:000000000000:function:f"),
                ("iam:PassRole", "arn:aws:iam::000000000000:role/r"),
            ],
        ),
        (
            "bedrock-runtime", "ConverseStream", {"modelId": "m"},
            [("bedrock:InvokeModelWithResponseStream", "arn:aws:bedrock:us-east-1::foundation-model/m")],
        ),
        (
            "bedrock-runtime", "Converse", {"modelId": "m"},
            [("bedrock:InvokeModel", "arn:aws:bedrock:us-east-1::foundation-model/m")],
        ),
        (
            "dynamodb", "Query", {"TableName": "t", "IndexName": "i"},
            [("dynamodb:Query", "arn:aws:dynamodb:us-east-1:000000000000:table/t/index/i")],
        ),
        (
            "dynamodb", "Query", {"TableName": "arn:aws:dynamodb:us-east-1:000000000000:table/open/index/secret"},
            [("dynamodb:Query", "arn:aws:dynamodb:us-east-1:000000000000:table/secret")],
        ),
        (
            "dynamodb", "TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "a"}}, {"ConditionCheck": {"TableName": "b"}}]},
            [
                ("dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:000000000000:table/a"),
                ("dynamodb:ConditionCheckItem", "arn:aws:dynamodb:us-east-1:000000000000:table/b"),
            ],
        ),
        (
            "s3vectors", "QueryVectors", {"vectorBucketName": "v", "indexName": "i", "returnMetadata": True},
            [
                ("s3vectors:QueryVectors", "arn:aws:s3vectors:us-east-1:000000000000:bucket/v/index/i"),
                ("s3vectors:GetVectors", "arn:aws:s3vectors:us-east-1:000000000000:bucket/v/index/i"),
            ],
        ),
        (
            "s3vectors", "CreateVectorBucket", {"vectorBucketName": "v", "tags": {"a": "b"}},
            [
                ("s3vectors:CreateVectorBucket", "arn:aws:s3vectors:us-east-1:000000000000:bucket/v"),
                ("s3vectors:TagResource", "arn:aws:s3vectors:us-east-1:000000000000:bucket/v"),
            ],
        ),
        (
            "apigatewayv2", "GetRoute", {"ApiId": "a", "RouteId": "r"},
            [("apigateway:GET", "arn:aws:apigateway:us-east-1::/apis/a/routes/r")],
        ),
        (
            "logs", "PutLogEvents", {"logGroupName": "/g", "logStreamName": "s"},
            [("logs:PutLogEvents", "arn:aws:logs:us-east-1:000000000000:log-group:/g:log-stream:s")],
        ),
        (
            "logs", "FilterLogEvents", {"logGroupIdentifier": "arn:aws:logs:x:1:log-group:secret:open"},
            [("logs:FilterLogEvents", "arn:aws:logs:us-east-1:000000000000:log-group:secret:log-stream:")],
        ),
        (
            "ssm", "GetParameters", {"Names": ["/a/b", "c:3"]},
            [
                ("ssm:GetParameters", "arn:aws:ssm:us-east-1:000000000000:parameter/a/b"),
                ("ssm:GetParameters", "arn:aws:ssm:us-east-1:000000000000:parameter/c"),
            ],
        ),
        (
            "cloudformation", "CreateStack", {"StackName": "s", "RoleARN": "arn:aws:iam::000000000000:role/r"},
            [
                ("cloudformation:CreateStack", "arn:aws:cloudformation:us-east-1:000000000000:stack/s/*"),
                ("iam:PassRole", "arn:aws:iam::000000000000:role/r"),
            ],
        ),
        ("sts", "GetCallerIdentity", {}, []),
        (
            "iam", "CreateUser", {"UserName": "n", "Path": "/x/"},
            [("iam:CreateUser", "arn:aws:iam::000000000000:user/x/n")],
        ),
    ],
)  # fmt: skip
def test_actions_and_resources(world, service, operation, params, expected):
    assert world.needs(service, operation, **params) == expected


# -- decisions --------------------------------------------------------------------------------------------------------


def test_each_protocol_has_its_denial(world):
    user = world.user("nobody")
    who = "User: arn:aws:iam::000000000000:user/nobody is not authorized to perform:"
    world.root("s3", "CreateBucket", Bucket="bucket-one")
    message = refused("AccessDenied", 403, world, user, "s3", "ListObjectsV2", Bucket="bucket-one")
    assert message == (
        f'{who} s3:ListBucket on resource: "arn:aws:s3:::bucket-one" because no identity-based policy allows the '
        "s3:ListBucket action"
    )
    url = world.root("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    message = refused("AccessDeniedException", 403, world, user, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")
    assert f"{who} sqs:sendmessage on resource: arn:aws:sqs:us-east-1:000000000000:q because" in message
    message = refused("AccessDeniedException", 400, world, user, "dynamodb", "GetItem", TableName="t", Key={})
    assert message == (
        f"{who} dynamodb:GetItem on resource: arn:aws:dynamodb:us-east-1:000000000000:table/t because no "
        "identity-based policy allows the dynamodb:GetItem action"
    )
    refused("AccessDeniedException", 403, world, user, "lambda", "ListFunctions")
    refused("AccessDenied", 403, world, user, "iam", "ListUsers")
    refused("AccessDenied", 403, world, user, "cloudformation", "ListStacks")
    refused("AccessDeniedException", 400, world, user, "logs", "DescribeLogGroups")
    assert world.call(user, "sts", "GetCallerIdentity")["Arn"] == user.arn


def test_a_denied_write_leaves_nothing(world):
    user = world.user("u", allow("sqs:GetQueueUrl"))
    refused("AccessDeniedException", 403, world, user, "sqs", "CreateQueue", QueueName="q")
    with pytest.raises(AwsError, match="does not exist"):
        world.root("sqs", "GetQueueUrl", QueueName="q")


def test_an_explicit_deny_wins_and_says_so(world):
    user = world.user("u", allow("sqs:*"), deny("sqs:CreateQueue", "arn:aws:sqs:*:*:secret-*"))
    world.call(user, "sqs", "CreateQueue", QueueName="open")
    message = refused("AccessDeniedException", 403, world, user, "sqs", "CreateQueue", QueueName="secret-1")
    assert message.endswith("with an explicit deny in an identity-based policy")


def test_deleting_objects_asks_for_every_key(world):
    world.root("s3", "CreateBucket", Bucket="bucket-one")
    user = world.user("u", allow("s3:DeleteObject", "arn:aws:s3:::bucket-one/mine/*"))
    world.call(user, "s3", "DeleteObjects", Bucket="bucket-one", Delete={"Objects": [{"Key": "mine/a"}]})
    both = {"Objects": [{"Key": "mine/a"}, {"Key": "theirs/a"}]}
    said = refused("AccessDenied", 403, world, user, "s3", "DeleteObjects", Bucket="bucket-one", Delete=both)
    assert "theirs/a" in said


def test_listing_by_prefix(world):
    world.root("s3", "CreateBucket", Bucket="bucket-one")
    condition = {"StringLike": {"s3:prefix": "home/${aws:username}/*"}}
    user = world.user("ada", allow("s3:ListBucket", "arn:aws:s3:::bucket-one", Condition=condition))
    world.call(user, "s3", "ListObjectsV2", Bucket="bucket-one", Prefix="home/ada/x")
    refused("AccessDenied", 403, world, user, "s3", "ListObjectsV2", Bucket="bucket-one", Prefix="home/bob/x")
    refused("AccessDenied", 403, world, user, "s3", "ListObjectsV2", Bucket="bucket-one")


def test_a_missing_object_is_told_to_those_who_may_list(world):
    world.root("s3", "CreateBucket", Bucket="bucket-one")
    reader = world.user("reader", allow("s3:GetObject"))
    lister = world.user("lister", allow(["s3:GetObject", "s3:ListBucket"]))
    said = refused("AccessDenied", 403, world, reader, "s3", "GetObject", Bucket="bucket-one", Key="k")
    assert "s3:ListBucket" in said
    refused("NoSuchKey", 404, world, lister, "s3", "GetObject", Bucket="bucket-one", Key="k")


def make_table(world):
    world.root(
        "dynamodb", "CreateTable", TableName="notes", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "owner", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "owner", "KeyType": "HASH"}],
    )  # fmt: skip


def test_leading_keys(world):
    make_table(world)
    condition = {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["${aws:username}"]}}
    actions = ["dynamodb:PutItem", "dynamodb:Query", "dynamodb:BatchWriteItem"]
    user = world.user("ada", allow(actions, Condition=condition))
    world.call(user, "dynamodb", "PutItem", TableName="notes", Item={"owner": {"S": "ada"}})
    theirs = {"owner": {"S": "bob"}}
    refused("AccessDeniedException", 400, world, user, "dynamodb", "PutItem", TableName="notes", Item=theirs)
    batch = {"notes": [{"PutRequest": {"Item": {"owner": {"S": "ada"}}}}, {"PutRequest": {"Item": theirs}}]}
    refused("AccessDeniedException", 400, world, user, "dynamodb", "BatchWriteItem", RequestItems=batch)
    query = {
        "TableName": "notes", "KeyConditionExpression": "#o = :o", "ExpressionAttributeNames": {"#o": "owner"},
    }  # fmt: skip
    mine = world.call(user, "dynamodb", "Query", **query, ExpressionAttributeValues={":o": {"S": "ada"}})
    assert mine["Count"] == 1
    values = {":o": {"S": "bob"}}
    refused("AccessDeniedException", 400, world, user, "dynamodb", "Query", **query, ExpressionAttributeValues=values)


def test_passing_a_role(world):
    world.role("worker")
    code = {"S3Bucket": "none", "S3Key": "none"}
    condition = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    maker = world.user("maker", allow("lambda:CreateFunction"))
    passer = world.user("passer", allow("lambda:CreateFunction"), allow("iam:PassRole", Condition=condition))
    function = {
        "FunctionName": "f", "Role": "arn:aws:iam::000000000000:role/worker", "Code": code, "Runtime": "python3.11",
        "Handler": "h.h",
    }  # fmt: skip
    message = refused("AccessDeniedException", 403, world, maker, "lambda", "CreateFunction", **function)
    assert "iam:PassRole on resource: arn:aws:iam::000000000000:role/worker" in message
    with pytest.raises(AwsError) as caught:
        world.call(passer, "lambda", "CreateFunction", **function)
    assert caught.value.code != "AccessDeniedException"


def test_a_permissions_boundary_limits(world):
    user = world.user("u", allow("sqs:*"))
    made = world.root("iam", "CreatePolicy", PolicyName="edge", PolicyDocument=policy(allow("sqs:ListQueues")))
    world.root("iam", "PutUserPermissionsBoundary", UserName="u", PermissionsBoundary=made["Policy"]["Arn"])
    world.call(user, "sqs", "ListQueues")
    message = refused("AccessDeniedException", 403, world, user, "sqs", "CreateQueue", QueueName="q")
    assert "permissions boundary" in message


def test_request_tags(world):
    condition = {"StringEquals": {"aws:RequestTag/team": "a"}}
    user = world.user("u", allow(["sqs:CreateQueue", "sqs:TagQueue"], Condition=condition))
    world.call(user, "sqs", "CreateQueue", QueueName="q", tags={"team": "a"})
    refused("AccessDeniedException", 403, world, user, "sqs", "CreateQueue", QueueName="r", tags={"team": "b"})


def test_a_change_set_named_by_arn_belongs_to_its_stack(world):
    template = json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}})
    made = world.root(
        "cloudformation", "CreateChangeSet", StackName="guarded", ChangeSetName="c", ChangeSetType="CREATE",
        TemplateBody=template,
    )  # fmt: skip
    user = world.user("u", allow("cloudformation:*", "arn:aws:cloudformation:*:*:stack/mine/*"))
    named = {"StackName": "mine", "ChangeSetName": made["Id"]}
    message = refused("AccessDenied", 403, world, user, "cloudformation", "ExecuteChangeSet", **named)
    assert made["StackId"] in message


# -- resource policies ------------------------------------------------------------------------------------------------


def queue_with(world, **statement):
    url = world.root("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    arn = "arn:aws:sqs:us-east-1:000000000000:q"
    text = policy(Effect="Allow", Action="sqs:SendMessage", Resource=arn, **statement)
    world.root("sqs", "SetQueueAttributes", QueueUrl=url, Attributes={"Policy": text})
    return url


def test_a_queue_policy_lets_one_user_in(world):
    ada, bob = world.user("ada"), world.user("bob")
    url = queue_with(world, Principal={"AWS": ada.arn})
    world.call(ada, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")
    refused("AccessDeniedException", 403, world, bob, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")
    refused("AccessDeniedException", 403, world, ada, "sqs", "ReceiveMessage", QueueUrl=url)


def test_a_policy_that_names_the_account_leaves_it_to_identity_policies(world):
    bare, allowed = world.user("bare"), world.user("allowed", allow("sqs:SendMessage"))
    url = queue_with(world, Principal={"AWS": "arn:aws:iam::000000000000:root"})
    refused("AccessDeniedException", 403, world, bare, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")
    world.call(allowed, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")


def test_a_user_of_another_account_needs_both_sides(world):
    url = world.root("sqs", "CreateQueue", QueueName="q")["QueueUrl"]
    foreign = Principal("arn:aws:iam::111111111111:user/x", "111111111111", "user")
    refused("AccessDeniedException", 403, world, foreign, "sqs", "SendMessage", QueueUrl=url, MessageBody="x")


def bucket_open_to_all(world, restrict):
    world.root("s3", "CreateBucket", Bucket="bucket-one")
    world.root("s3", "PutObject", Bucket="bucket-one", Key="page", Body=b"hello")
    block = {
        "BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False,
        "RestrictPublicBuckets": restrict,
    }  # fmt: skip
    world.root("s3", "PutPublicAccessBlock", Bucket="bucket-one", PublicAccessBlockConfiguration=block)
    text = policy(Effect="Allow", Principal="*", Action="s3:GetObject", Resource="arn:aws:s3:::bucket-one/*")
    world.root("s3", "PutBucketPolicy", Bucket="bucket-one", Policy=text)


def test_an_anonymous_reader_of_a_public_bucket(world):
    bucket_open_to_all(world, restrict=False)
    nobody = Principal("anonymous", "", "anonymous")
    assert world.call(nobody, "s3", "GetObject", Bucket="bucket-one", Key="page")["Body"] == b"hello"
    said = refused("AccessDenied", 403, world, nobody, "s3", "DeleteObject", Bucket="bucket-one", Key="page")
    assert said == "Access Denied"


def test_restrict_public_buckets_keeps_strangers_out(world):
    bucket_open_to_all(world, restrict=True)
    nobody = Principal("anonymous", "", "anonymous")
    refused("AccessDenied", 403, world, nobody, "s3", "GetObject", Bucket="bucket-one", Key="page")
