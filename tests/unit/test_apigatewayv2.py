"""HTTP APIs: the rules without I/O."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.services.apigatewayv2.domain import (
    check_integration,
    function_of,
    import_openapi,
    make_route,
    parse_route_key,
    select_route,
)

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


def routes(*keys):
    return [make_route({"RouteId": str(n), "RouteKey": key, "Target": "integrations/i"}) for n, key in enumerate(keys)]


def chosen(method, path, *keys):
    found = select_route(routes(*keys), method, path)
    return None if found is None else (found[0].key, found[1])


@pytest.mark.parametrize("order", [1, -1])
def test_selection_does_not_depend_on_order(order):
    keys = ("$default", "ANY /{all+}", "GET /a/{x}", "GET /a/b", "ANY /a/b", "GET /a/{rest+}", "GET /")[::order]
    assert chosen("GET", "/a/b", *keys) == ("GET /a/b", {})
    assert chosen("POST", "/a/b", *keys) == ("ANY /a/b", {})
    assert chosen("GET", "/a/c", *keys) == ("GET /a/{x}", {"x": "c"})
    assert chosen("GET", "/a/c/d%2Fe", *keys) == ("GET /a/{rest+}", {"rest": "c/d/e"})
    assert chosen("PUT", "/z", *keys) == ("ANY /{all+}", {"all": "z"})
    assert chosen("GET", "/", *keys) == ("GET /", {})
    assert chosen("POST", "/", *keys) == ("$default", {})


def test_nothing_matches():
    assert chosen("GET", "/x", "GET /y", "POST /x") is None
    assert chosen("GET", "/files", "GET /files/{rest+}") is None
    assert chosen("GET", "/a/b/c", "GET /a/{x}") is None


@pytest.mark.parametrize("key", ["", "GET", "get /x", "GET x", "/x", "GET /{a+}/x", "GET /a{b}", "GET /{}", "GET /{a"])
def test_route_keys_that_are_none(key):
    with pytest.raises(AwsError) as failure:
        parse_route_key(key)
    assert (failure.value.code, failure.value.status) == ("BadRequestException", 400)


def test_functions_in_uris():
    path = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/"
    assert function_of(ARN) == function_of(f"{path}{ARN}/invocations") == ARN
    assert function_of(f"{path}{ARN}:live/invocations") == f"{ARN}:live"
    assert function_of("http://example.test") is None


def test_integrations_that_are_none():
    good = {"IntegrationType": "AWS_PROXY", "IntegrationUri": ARN, "PayloadFormatVersion": "2.0"}
    check_integration(good)
    queue = {"IntegrationType": "AWS_PROXY", "IntegrationSubtype": "SQS-SendMessage",
             "RequestParameters": {"QueueUrl": "u", "MessageBody": "b"}}  # fmt: skip
    check_integration(queue)
    bad = [
        good | {"IntegrationType": "HTTP_PROXY"},
        good | {"ConnectionType": "VPC_LINK"},
        good | {"IntegrationUri": "x"},
        good | {"PayloadFormatVersion": "1.5"},
        {key: value for key, value in good.items() if key != "PayloadFormatVersion"},
        queue | {"IntegrationSubtype": "SQS-PurgeQueue"},
        queue | {"RequestParameters": {"QueueUrl": "u"}},
        queue | {"RequestParameters": {"QueueUrl": "u", "MessageBody": "b", "Other": "c"}},
    ]
    for params in bad:
        with pytest.raises(AwsError) as failure:
            check_integration(params)
        assert failure.value.code == "BadRequestException", params


def test_openapi():
    integration = {"type": "AWS_PROXY", "uri": ARN, "payloadFormatVersion": "2.0", "timeoutInMillis": 500}
    operation = {"x-amazon-apigateway-integration": integration}
    api, found = import_openapi(
        {
            "openapi": "3.0.1",
            "info": {"title": "t", "version": 1.5},
            "x-amazon-apigateway-cors": {"allowOrigins": ["*"], "maxAge": 5},
            "paths": {
                "/$default": {"x-amazon-apigateway-any-method": operation},
                "/a/{b}": {"get": operation, "x-amazon-apigateway-any-method": operation, "parameters": []},
                "/none": {"get": {}},
            },
        }
    )
    assert api == {"Name": "t", "Version": "1.5", "CorsConfiguration": {"AllowOrigins": ["*"], "MaxAge": 5}}
    assert [key for key, _ in found] == ["$default", "GET /a/{b}", "ANY /a/{b}"]
    assert found[0][1] == {
        "IntegrationType": "AWS_PROXY", "IntegrationUri": ARN, "PayloadFormatVersion": "2.0", "TimeoutInMillis": 500,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [{}, {"paths": []}, {"paths": {"/x": None}}, {"paths": {}, "x-amazon-apigateway-cors": ["*"]}]
)
def test_documents_that_cannot_be_imported(body):
    with pytest.raises(AwsError) as failure:
        import_openapi(body)
    assert failure.value.code == "BadRequestException"
