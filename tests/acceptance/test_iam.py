"""IAM and STS through boto3."""

import json
import uuid

import pytest

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
DOCUMENT = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


def test_a_role_with_its_policies(aws):
    iam = aws.client("iam")
    name = f"role-{uuid.uuid4()}"
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST), Tags=[{"Key": "a", "Value": "b"}])
    assert made["Role"]["AssumeRolePolicyDocument"] == TRUST
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=json.dumps(DOCUMENT))
    assert iam.get_role_policy(RoleName=name, PolicyName="inline")["PolicyDocument"] == DOCUMENT
    iam.attach_role_policy(RoleName=name, PolicyArn=BASIC)
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert [entry["PolicyArn"] for entry in attached] == [BASIC]
    with pytest.raises(iam.exceptions.DeleteConflictException):
        iam.delete_role(RoleName=name)
    iam.detach_role_policy(RoleName=name, PolicyArn=BASIC)
    iam.delete_role_policy(RoleName=name, PolicyName="inline")
    iam.delete_role(RoleName=name)
    with pytest.raises(iam.exceptions.NoSuchEntityException) as caught:
        iam.get_role(RoleName=name)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


def test_who_am_i_and_a_session(aws):
    sts = aws.client("sts")
    assert sts.get_caller_identity()["Account"] == "000000000000"
    arn = f"arn:aws:iam::000000000000:role/{uuid.uuid4()}"
    answer = sts.assume_role(RoleArn=arn, RoleSessionName="session")
    assert answer["Credentials"]["AccessKeyId"].startswith("ASIA")
    assert answer["AssumedRoleUser"]["Arn"].endswith("/session")


def test_once_a_user_has_a_key_only_known_keys_are_taken(fresh_server):
    import boto3
    from botocore.exceptions import ClientError

    server = fresh_server()
    iam = server.client("iam")
    iam.create_user(UserName="ann")
    assert server.client("sts").get_caller_identity()["Arn"].endswith(":root")
    key = iam.create_access_key(UserName="ann")["AccessKey"]

    def caller(access_key, secret):
        sts = boto3.client("sts", endpoint_url=server.endpoint, region_name="us-east-1",
                           aws_access_key_id=access_key, aws_secret_access_key=secret)  # fmt: skip
        return sts.get_caller_identity()["Arn"]

    assert caller(key["AccessKeyId"], key["SecretAccessKey"]) == "arn:aws:iam::000000000000:user/ann"
    with pytest.raises(ClientError) as unknown:
        caller("test", "test")
    assert unknown.value.response["Error"]["Code"] == "InvalidClientTokenId"
    with pytest.raises(ClientError) as wrong:
        caller(key["AccessKeyId"], "wrong")
    assert wrong.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
