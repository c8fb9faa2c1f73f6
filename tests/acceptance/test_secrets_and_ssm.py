"""Secrets Manager and Parameter Store through boto3."""

import uuid

import pytest


def test_a_secret(aws):
    client = aws.client("secretsmanager")
    name = f"app/{uuid.uuid4()}"
    made = client.create_secret(Name=name, SecretString='{"user":"ü"}')
    assert client.get_secret_value(SecretId=made["ARN"])["SecretString"] == '{"user":"ü"}'
    client.put_secret_value(SecretId=name, SecretBinary=b"\x00\x01")
    assert client.get_secret_value(SecretId=name)["SecretBinary"] == b"\x00\x01"
    assert client.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["VersionId"] == made["VersionId"]
    client.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_secret(SecretId=name)


def test_parameters(aws):
    client = aws.client("ssm")
    base = f"/{uuid.uuid4()}"
    client.put_parameter(Name=f"{base}/plain", Value="v", Type="String")
    client.put_parameter(Name=f"{base}/secure", Value="hush", Type="SecureString")
    assert client.get_parameter(Name=f"{base}/secure", WithDecryption=True)["Parameter"]["Value"] == "hush"
    pages = client.get_paginator("get_parameters_by_path").paginate(Path=base, PaginationConfig={"PageSize": 1})
    assert [entry["Name"] for page in pages for entry in page["Parameters"]] == [f"{base}/plain", f"{base}/secure"]
    with pytest.raises(client.exceptions.ParameterNotFound):
        client.get_parameter(Name=f"{base}/absent")
    with pytest.raises(client.exceptions.ParameterAlreadyExists):
        client.put_parameter(Name=f"{base}/plain", Value="v", Type="String")
