"""Policy documents: the evaluation rules of IAM, one row each."""

import json

import pytest

from preheat.identity import policy
from preheat.identity.policy import Request, evaluate

USER = "arn:aws:iam::111122223333:user/alice"


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action="s3:GetObject", resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action="s3:GetObject", resource="*", **more):
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def asked(action="s3:GetObject", resource="arn:aws:s3:::b/k", **context):
    return Request(action, resource, USER, "111122223333", (), {name.lower(): value for name, value in context.items()})


ALLOW, DENY = document(allow()), document(deny())


@pytest.mark.parametrize(
    ("policies", "allowed", "explicit"),
    [
        ({}, False, False),
        ({"identity": [ALLOW]}, True, True),
        ({"identity": [ALLOW, DENY]}, False, True),
        ({"identity": [ALLOW], "boundary": []}, False, False),
        ({"identity": [ALLOW], "boundary": [ALLOW]}, True, True),
        ({"boundary": [ALLOW]}, False, False),
        ({"identity": [ALLOW], "session": []}, False, False),
        ({"identity": [ALLOW], "session": [DENY]}, False, True),
        ({"identity": [ALLOW], "boundary": [ALLOW], "session": [ALLOW]}, True, True),
        ({"resource": [document(allow(Principal="*"))]}, True, True),
        ({"resource": [document(deny(Principal="*"))], "identity": [ALLOW]}, False, True),
        ({"resource": [document(allow(Principal={"AWS": "111122223333"}))], "boundary": []}, False, False),
        ({"resource": [document(allow(Principal={"AWS": USER}))], "boundary": []}, True, True),
        ({"resource": [document(allow(Principal={"AWS": USER}))], "boundary": [DENY]}, False, True),
        ({"resource": [document(allow(Principal={"AWS": "444455556666"}))]}, False, False),
        ({"identity": [ALLOW], "resource_account": "444455556666"}, False, False),
        ({"resource": [document(allow(Principal={"AWS": USER}))], "resource_account": "4"}, False, False),
        (
            {"identity": [ALLOW], "resource": [document(allow(Principal={"AWS": USER}))], "resource_account": "4"},
            True,
            True,
        ),
    ],
)
def test_which_policies_decide(policies, allowed, explicit):
    decision = evaluate(asked(), **policies)
    assert (decision.allowed, decision.explicit) == (allowed, explicit)


@pytest.mark.parametrize(
    ("statement", "applies"),
    [
        (allow("s3:*"), True),
        (allow("S3:getobject"), True),
        (allow("s3:Get?bject"), True),
        (allow("s3:Put*"), False),
        (allow(["sqs:*", "s3:GetObject"]), True),
        (allow("*"), True),
        ({"Effect": "Allow", "NotAction": "s3:Delete*", "Resource": "*"}, True),
        ({"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}, False),
        (allow(resource="arn:aws:s3:::b/*"), True),
        (allow(resource="arn:aws:s3:::b"), False),
        (allow(resource="arn:aws:s3:::*k"), True),
        (allow(resource="arn:aws:s3:::B/k"), False),
        ({"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "arn:aws:s3:::b/*"}, False),
        ({"Effect": "Allow", "Action": "s3:GetObject", "NotResource": "arn:aws:s3:::c/*"}, True),
        (allow(NotPrincipal={"AWS": USER}), False),
        (allow(NotPrincipal={"AWS": "arn:aws:iam::1:user/x"}), True),
    ],
)
def test_what_a_statement_speaks_of(statement, applies):
    assert policy.applies(statement, asked()) is applies


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "context", "holds"),
    [
        ("StringEquals", "aws:x", "a", {"aws:x": ["a"]}, True),
        ("StringEquals", "AWS:X", ["b", "a"], {"aws:x": ["a"]}, True),
        ("StringEquals", "aws:x", "A", {"aws:x": ["a"]}, False),
        ("StringEquals", "aws:x", "a", {}, False),
        ("StringEqualsIfExists", "aws:x", "a", {}, True),
        ("StringNotEquals", "aws:x", ["a", "b"], {"aws:x": ["b"]}, False),
        ("StringNotEquals", "aws:x", "a", {}, True),
        ("StringEqualsIgnoreCase", "aws:x", "A", {"aws:x": ["a"]}, True),
        ("StringLike", "s3:prefix", "home/*", {"s3:prefix": ["home/a"]}, True),
        ("StringNotLike", "s3:prefix", "home/*", {"s3:prefix": ["home/a"]}, False),
        ("NumericLessThan", "s3:max-keys", "10", {"s3:max-keys": ["9.5"]}, True),
        ("NumericGreaterThanEquals", "s3:max-keys", 10, {"s3:max-keys": ["9"]}, False),
        ("NumericEquals", "s3:max-keys", "10", {"s3:max-keys": ["ten"]}, False),
        (
            "DateLessThan",
            "aws:CurrentTime",
            "2024-01-01T00:00:00Z",
            {"aws:currenttime": ["2023-12-31T23:59:59Z"]},
            True,
        ),
        ("DateGreaterThan", "aws:EpochTime", "1700000000", {"aws:epochtime": ["1700000001"]}, True),
        ("Bool", "aws:SecureTransport", "false", {"aws:securetransport": ["false"]}, True),
        ("Bool", "aws:SecureTransport", True, {"aws:securetransport": ["false"]}, False),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", {"aws:sourceip": ["10.1.2.3"]}, True),
        ("NotIpAddress", "aws:SourceIp", "10.0.0.0/8", {"aws:sourceip": ["10.1.2.3"]}, False),
        ("IpAddress", "aws:SourceIp", "2001:db8::/32", {"aws:sourceip": ["2001:db8::1"]}, True),
        ("ArnLike", "aws:SourceArn", "arn:aws:s3:::b*", {"aws:sourcearn": ["arn:aws:s3:::bucket"]}, True),
        ("ArnLike", "aws:SourceArn", "arn:aws:*:b", {"aws:sourcearn": ["arn:aws:s3:us:1:b"]}, False),
        ("ArnNotEquals", "aws:SourceArn", "arn:aws:s3:::b", {"aws:sourcearn": ["arn:aws:s3:::c"]}, True),
        ("Null", "aws:x", "true", {}, True),
        ("Null", "aws:x", "false", {}, False),
        ("Null", "aws:x", "false", {"aws:x": ["1"]}, True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["a", "b"], {"aws:tagkeys": ["a"]}, True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["a", "b"], {"aws:tagkeys": ["a", "c"]}, False),
        ("ForAllValues:StringEquals", "aws:TagKeys", "a", {}, True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", "a", {"aws:tagkeys": ["b", "a"]}, True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", "a", {}, False),
        ("StringEquals", "aws:x", "${aws:username}", {"aws:x": ["al*"], "aws:username": ["al*"]}, True),
        ("StringLike", "aws:x", "${aws:username}", {"aws:x": ["alice"], "aws:username": ["al*"]}, False),
        ("StringLike", "aws:x", "a${*}b", {"aws:x": ["a*b"]}, True),
        ("StringLike", "aws:x", "a${*}b", {"aws:x": ["axb"]}, False),
        ("StringEquals", "aws:x", "${aws:missing, 'plain'}", {"aws:x": ["plain"]}, True),
        ("StringEquals", "aws:x", "${aws:missing}", {"aws:x": [""]}, False),
    ],
)
def test_conditions(operator, key, wanted, context, holds):
    statement = allow(Condition={operator: {key: wanted}})
    assert policy.applies(statement, asked(**context)) is holds


def test_a_variable_in_a_resource():
    text = document(allow(resource="arn:aws:s3:::b/${aws:username}/*"))
    assert evaluate(asked(resource="arn:aws:s3:::b/alice/x", **{"aws:username": ["alice"]}), identity=[text]).allowed
    assert not evaluate(asked(resource="arn:aws:s3:::b/bob/x", **{"aws:username": ["alice"]}), identity=[text]).allowed
    assert not evaluate(asked(resource="arn:aws:s3:::b//x"), identity=[text]).allowed


def test_the_words_of_a_denial():
    request = asked()
    start = f"User: {USER} is not authorized to perform: s3:GetObject on resource: arn:aws:s3:::b/k "
    assert evaluate(request).message(request) == (
        start + "because no identity-based policy allows the s3:GetObject action"
    )
    assert evaluate(request, identity=[DENY]).message(request) == (
        start + "with an explicit deny in an identity-based policy"
    )
    assert evaluate(request, identity=[ALLOW], boundary=[]).message(request) == (
        start + "because no permissions boundary allows the s3:GetObject action"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Syntax errors"),
        ("[]", "Syntax errors"),
        (json.dumps({"Version": "2011-01-01", "Statement": [allow()]}), "valid version"),
        (json.dumps({"Version": "2012-10-17"}), "Syntax errors"),
        (document({"Effect": "Maybe", "Action": "s3:*", "Resource": "*"}), "Syntax errors"),
        (document({"Effect": "Allow", "Resource": "*"}), "must contain actions"),
        (document({"Effect": "Allow", "Action": "s3:*"}), "must contain resources"),
        (document(allow("GetObject")), "prefaced by a vendor"),
        (document(allow(resource="bucket")), "ARN format"),
        (document(allow(Principal="*")), "should not specify a principal"),
        (document(allow(Condition={"StringIs": {"a": "b"}})), "Invalid Condition type"),
        (document(allow(Sid="a"), allow(Sid="a")), "must be unique"),
    ],
)
def test_malformed_identity_policies(text, message):
    with pytest.raises(policy.MalformedPolicy, match=message):
        policy.check_identity_policy(text)


def test_trust_policies():
    good = document({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"})
    assert len(policy.check_trust_policy(good)) == 1
    with pytest.raises(policy.MalformedPolicy, match="Has prohibited field Resource"):
        policy.check_trust_policy(document(allow("sts:AssumeRole", Principal="*")))
    with pytest.raises(policy.MalformedPolicy, match="may only specify STS"):
        policy.check_trust_policy(document({"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}))
