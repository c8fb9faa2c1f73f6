"""Signatures against botocore's signers: what they sign is accepted, what is changed afterwards is refused."""

import datetime
import hashlib
import hmac

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.identity import sigv2, sigv4
from preheat.identity.authentication import Authenticator
from preheat.identity.principal import ANONYMOUS, Identity, Known
from preheat.kernel.errors import AwsError
from preheat.kernel.http import HttpRequest

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ALICE = Identity("arn:aws:iam::000000000000:user/alice", "000000000000", "user", "AIDAALICE", KEY)
BASE = "http://127.0.0.1:4566"


def lookup(access_key, token):
    return Known(SECRET, ALICE) if access_key == KEY else None


def received(signed) -> HttpRequest:
    """What a server sees of a request that botocore signed."""
    prepared = signed.prepare()
    target = prepared.url.removeprefix(BASE) or "/"
    headers = {}
    for name, value in prepared.headers.items():
        text = value.decode() if isinstance(value, bytes) else value
        headers[name.lower()] = text
    headers.setdefault("host", "127.0.0.1:4566")
    body = prepared.body or b""
    return HttpRequest(prepared.method, target, headers, body.encode() if isinstance(body, str) else body)


def sign(signer, service, *, method="POST", path="/", headers=None, data=b"", token=None, region="us-east-1", **more):
    request = AWSRequest(method=method, url=BASE + path, headers=headers or {}, data=data)
    credentials = Credentials(KEY, SECRET, token)
    if signer in (botocore.auth.HmacV1Auth, botocore.auth.HmacV1QueryAuth):
        signer(credentials, **more).add_auth(request)
    else:
        signer(credentials, service, region, **more).add_auth(request)
    return received(request)


def now() -> float:
    return datetime.datetime.now(datetime.UTC).timestamp()


def authenticate(request, *, enforce=True, at=None, find=lookup):
    return Authenticator().authenticate(request, find, enforce=enforce, now=now() if at is None else at)


JSON_HEADERS = {"X-Amz-Target": "AmazonSQS.SendMessage", "Content-Type": "application/x-amz-json-1.0"}
FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("signer", "service", "method", "path", "headers", "data"),
    [
        (botocore.auth.SigV4Auth, "sqs", "POST", "/", JSON_HEADERS, b'{"a":1}'),
        (botocore.auth.SigV4Auth, "iam", "POST", "/", FORM_HEADERS, b"Action=ListUsers"),
        (botocore.auth.SigV4Auth, "lambda", "GET", "/2015-03-31/functions/a%3Ab?Qualifier=%24LATEST&A=", {}, b""),
        (botocore.auth.SigV4Auth, "execute-api", "GET", "/a/../b//c/./%C3%A9/?z=1&a=2&a=1", {}, b""),
        (botocore.auth.SigV4Auth, "lambda", "POST", "/x", {"X-Amz-Note": "two   spaces  "}, b"{}"),
        (botocore.auth.S3SigV4Auth, "s3", "PUT", "/bucket/a/../b//c%20d/%C3%A9~", {}, b"body"),
        (botocore.auth.S3SigV4Auth, "s3", "GET", "/bucket?list-type=2&prefix=a%2Fb&delimiter=%2F", {}, b""),
        (botocore.auth.S3SigV4QueryAuth, "s3", "GET", "/bucket/key%20x?versionId=null", {}, b""),
        (botocore.auth.SigV4QueryAuth, "sts", "GET", "/?Action=GetCallerIdentity&Version=2011-06-15", {}, b""),
        (botocore.auth.HmacV1QueryAuth, "s3", "GET", "/bucket/key%20x?response-content-type=a%2Fb", {}, b""),
        (botocore.auth.HmacV1QueryAuth, "s3", "PUT", "/bucket/key", {"Content-Type": "text/x"}, b"b"),
        (botocore.auth.HmacV1Auth, "s3", "PUT", "/bucket/key?uploads", {"X-Amz-Meta-A": " b "}, b"b"),
    ],
)
@pytest.mark.parametrize("token", [None, "a/session+token=="])
def test_what_botocore_signs_is_accepted(signer, service, method, path, headers, data, token):
    request = sign(signer, service, method=method, path=path, headers=dict(headers), data=data, token=token)
    assert authenticate(request) == ALICE
    wrong = lambda access_key, token: Known("another secret", ALICE)  # noqa: E731
    with pytest.raises(AwsError) as refused:
        authenticate(request, find=wrong)
    assert refused.value.code in ("SignatureDoesNotMatch", "InvalidSignatureException")
    assert refused.value.status == 403


@settings(max_examples=60, deadline=None)
@given(
    path=st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20),
    query=st.lists(
        st.tuples(st.text("abc =&%+~*/é", min_size=1, max_size=5), st.text("ab =&%+~*é", max_size=5)), max_size=4
    ),
    service=st.sampled_from(["s3", "lambda"]),
)
def test_any_path_and_query(path, query, service):
    from urllib.parse import quote

    encoded = quote("/" + path.lstrip("/"), safe="/~")
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = sign(signer, service, method="GET", path=encoded + ("?" + text if text else ""))
    assert authenticate(request) == ALICE


@pytest.mark.parametrize("change", ["body", "path", "query", "header", "method"])
@pytest.mark.parametrize("service", ["s3", "sqs"])
def test_what_is_changed_afterwards_is_refused(change, service):
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = sign(signer, service, path="/b/k?x=1", headers={"X-Amz-Meta-A": "1"}, data=b"body")
    if change == "body":
        request.body = b"other"
    elif change == "path":
        request = HttpRequest("POST", "/b/l?x=1", request.headers, request.body)
    elif change == "query":
        request = HttpRequest("POST", "/b/k?x=2", request.headers, request.body)
    elif change == "header":
        request.headers["x-amz-meta-a"] = "2"
    else:
        request.method = "PUT"
    with pytest.raises(AwsError) as refused:
        authenticate(request)
    expected = {"s3": "SignatureDoesNotMatch", "sqs": "InvalidSignatureException"}[service]
    assert refused.value.code == ("XAmzContentSHA256Mismatch" if (change, service) == ("body", "s3") else expected)


def test_s3_says_what_it_calculated():
    request = sign(botocore.auth.S3SigV4Auth, "s3", method="GET", path="/b/k")
    request.headers["x-amz-date"] = request.headers["x-amz-date"][:-2] + (
        "0Z" if request.headers["x-amz-date"][-2] != "0" else "1Z"
    )
    with pytest.raises(AwsError) as refused:
        authenticate(request)
    fields = refused.value.fields
    assert fields["AWSAccessKeyId"] == KEY
    assert fields["CanonicalRequest"].startswith("GET\n/b/k\n")
    assert bytes.fromhex(fields["StringToSignBytes"]).decode() == fields["StringToSign"]


def test_an_unsigned_amz_header_is_refused():
    request = sign(botocore.auth.S3SigV4Auth, "s3", method="GET", path="/b/k")
    request.headers["x-amz-acl"] = "private"
    with pytest.raises(AwsError, match="not signed") as refused:
        authenticate(request)
    assert (refused.value.code, refused.value.fields["HeadersNotSigned"]) == ("AccessDenied", "x-amz-acl")


@pytest.mark.parametrize(
    ("service", "headers", "code"),
    [
        ("s3", {}, "InvalidAccessKeyId"),
        ("sqs", JSON_HEADERS, "UnrecognizedClientException"),
        ("iam", FORM_HEADERS, "InvalidClientTokenId"),
    ],
)
def test_an_unknown_key(service, headers, code):
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = sign(signer, service, headers=dict(headers))
    nobody = lambda access_key, token: None  # noqa: E731
    with pytest.raises(AwsError) as refused:
        authenticate(request, find=nobody)
    assert (refused.value.code, refused.value.status) == (code, 403)
    root = authenticate(request, find=nobody, enforce=False)
    assert (root.kind, root.account, root.access_key) == ("root", "000000000000", KEY)


def test_a_twelve_digit_key_names_its_account():
    request = AWSRequest(method="POST", url=BASE + "/", headers=dict(JSON_HEADERS))
    botocore.auth.SigV4Auth(Credentials("123456789012", "x"), "sqs", "us-east-1").add_auth(request)
    assert authenticate(received(request), enforce=False).arn == "arn:aws:iam::123456789012:root"


@pytest.mark.parametrize(
    ("service", "headers", "code"),
    [
        ("s3", {}, "RequestTimeTooSkewed"),
        ("sqs", JSON_HEADERS, "InvalidSignatureException"),
        ("iam", FORM_HEADERS, "SignatureDoesNotMatch"),
    ],
)
@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_clock_that_is_far_off(service, headers, code, shift):
    signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = sign(signer, service, headers=dict(headers))
    with pytest.raises(AwsError) as refused:
        authenticate(request, at=now() + shift)
    assert refused.value.code == code


@pytest.mark.parametrize("enforce", [True, False])
@pytest.mark.parametrize("signer", [botocore.auth.S3SigV4QueryAuth, botocore.auth.HmacV1QueryAuth])
def test_a_presigned_url_expires(signer, enforce):
    request = sign(signer, "s3", method="GET", path="/b/k", expires=60)
    find = lookup if enforce else (lambda access_key, token: None)
    authenticate(request, at=now() + 30, enforce=enforce, find=find)
    with pytest.raises(AwsError, match="Request has expired") as refused:
        authenticate(request, at=now() + 90, enforce=enforce, find=find)
    assert (refused.value.code, refused.value.status) == ("AccessDenied", 403)
    assert refused.value.fields["ServerTime"].endswith("Z")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("X-Amz-Expires=60", "X-Amz-Expires=604801", "less than a week"),
        ("X-Amz-Expires=60", "X-Amz-Expires=-1", "non-negative"),
        ("X-Amz-Expires=60", "X-Amz-Expires=x", "should be a number"),
        ("X-Amz-Expires=60&", "", "requires the X-Amz-Algorithm"),
        ("%2Faws4_request", "", "mal-formed"),
    ],
)
def test_mutilated_query_authentication(old, new, message):
    request = sign(botocore.auth.S3SigV4QueryAuth, "s3", method="GET", path="/b/k", expires=60)
    assert old in request.target
    with pytest.raises(AwsError, match=message) as refused:
        authenticate(HttpRequest("GET", request.target.replace(old, new), request.headers))
    assert (refused.value.code, refused.value.status) == ("AuthorizationQueryParametersError", 400)


@pytest.mark.parametrize(
    "rest",
    [
        "Credential=a/b/c, SignedHeaders=host, Signature=0",
        "Credential=AK/20240101/us-east-1/X/aws4_request, SignedHeaders=host",
        "Credential=AK/20240101/us-east-1/X/aws4_request, SignedHeaders=host, Signature=0",
    ],
)
def test_mutilated_headers(rest):
    headers = "AWS4-HMAC-SHA256 " + rest
    for service, code, extra in (
        ("s3", "AuthorizationHeaderMalformed", {"x-amz-content-sha256": "x"}),
        ("sqs", "IncompleteSignatureException", {"x-amz-target": "a.b"}),
    ):
        text = headers.replace("/X/", f"/{service}/")
        request = HttpRequest("POST", "/", {"authorization": text, "host": "h", **extra})
        with pytest.raises(AwsError) as refused:
            authenticate(request)
        assert refused.value.code == code


def test_session_tokens():
    held = Known(SECRET, ALICE, token="right", expires=now() + 100)
    find = lambda access_key, token: held  # noqa: E731
    good = sign(botocore.auth.S3SigV4Auth, "s3", method="GET", path="/b/k", token="right")
    assert authenticate(good, find=find) == ALICE
    bad = sign(botocore.auth.S3SigV4Auth, "s3", method="GET", path="/b/k", token="wrong")
    with pytest.raises(AwsError) as refused:
        authenticate(bad, find=find)
    assert refused.value.code == "InvalidToken"
    late = sign(botocore.auth.SigV4Auth, "sqs", headers=dict(JSON_HEADERS), token="right")
    with pytest.raises(AwsError) as refused:
        authenticate(late, find=lambda access_key, token: Known(SECRET, ALICE, token="right", expires=now() - 1))
    assert refused.value.code == "ExpiredTokenException"


def test_no_signature_at_all():
    assert authenticate(HttpRequest("GET", "/b/k", {"host": "h"})) == ANONYMOUS
    assert authenticate(HttpRequest("GET", "/b/k", {"host": "h"}), enforce=False).kind == "root"
    with pytest.raises(AwsError) as refused:
        authenticate(HttpRequest("POST", "/", {"host": "h", "x-amz-target": "AmazonSQS.SendMessage"}))
    assert refused.value.code == "MissingAuthenticationTokenException"


# -- signed chunks ------------------------------------------------------------------------------------------------


def chunked(chunks, trailer=None):
    """A request whose body is signed chunk by chunk, by the rules of the S3 documentation, apart from our own code."""
    payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    headers = {"X-Amz-Content-SHA256": payload, "X-Amz-Decoded-Content-Length": str(sum(map(len, chunks)))}
    request = AWSRequest(method="PUT", url=BASE + "/b/k", headers=headers)
    signer = botocore.auth.SigV4Auth(Credentials(KEY, SECRET), "s3", "us-east-1")
    signer.add_auth(request)
    date = request.context["timestamp"]
    scope = signer.credential_scope(request)
    key = b"AWS4" + SECRET.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    previous = request.headers["Authorization"].rsplit("Signature=", 1)[1]
    body = b""
    empty = hashlib.sha256(b"").hexdigest()
    for chunk in [*chunks, b""]:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{previous}\n{empty}\n{hashlib.sha256(chunk).hexdigest()}"
        previous = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        body += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailer:
        digest = hashlib.sha256(trailer + b"\n").hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{date}\n{scope}\n{previous}\n{digest}"
        final = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        body += trailer + b"\r\nx-amz-trailer-signature:" + final.encode() + b"\r\n"
    built = received(request)
    built.body = body + b"\r\n"
    return built


@pytest.mark.parametrize("trailer", [None, b"x-amz-checksum-crc32:AAAAAA=="])
def test_signed_chunks(trailer):
    request = chunked([b"a" * 70_000, b"tail"], trailer)
    assert authenticate(request) == ALICE
    request.body = request.body.replace(b"tail", b"liat")
    with pytest.raises(AwsError) as refused:
        authenticate(request)
    assert refused.value.code == "SignatureDoesNotMatch"


def test_a_changed_trailer_and_a_body_that_breaks_off():
    request = chunked([b"abc"], b"x-amz-checksum-crc32:AAAAAA==")
    request.body = request.body.replace(b"AAAAAA==", b"BAAAAA==")
    with pytest.raises(AwsError) as refused:
        authenticate(request)
    assert refused.value.code == "SignatureDoesNotMatch"
    request = chunked([b"abc" * 100])
    request.body = request.body[:150]
    with pytest.raises(AwsError) as refused:
        authenticate(request)
    assert refused.value.code == "IncompleteBody"


def test_signing_keys_are_kept_within_bounds():
    verifier = sigv4.Verifier(capacity=3)
    request = sign(botocore.auth.SigV4Auth, "sqs", headers=dict(JSON_HEADERS))
    signature = sigv4.parse(request)
    keys = {verifier.signing_key(f"secret{number}", signature) for number in range(10)}
    assert len(keys) == 10 and len(verifier._keys) == 3


def test_version_two_needs_all_its_parts():
    with pytest.raises(AwsError, match="requires the Signature"):
        sigv2.parse(HttpRequest("GET", "/b/k?AWSAccessKeyId=a&Expires=5", {}))
