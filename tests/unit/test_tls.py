"""TLS on the port that speaks plain HTTP too, and the local authority behind it."""

import asyncio
import contextlib
import socket
import ssl
import stat
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from preheat.gateway.authorization import request_keys
from preheat.gateway.certificates import KNOWN_NAMES, Certificates
from preheat.gateway.connection import Connection, ConnectionLimits
from preheat.gateway.tls import ADVICE, TlsTransport
from preheat.identity.authority import LEAF_S, LIFETIME_S, RENEW_S, SOURCE, covers, lay_out, obtain
from preheat.identity.trust import Trust
from preheat.kernel.clock import ManualClock
from preheat.kernel.entropy import SeededEntropy
from preheat.kernel.http import HttpRequest, HttpResponse
from preheat.kernel.scope import Scope
from preheat.kernel.secure import SecureRequest, is_secure
from preheat.kernel.stream import InlineBackground
from tests.support.execution_driver import until

DEADLINE_S = 20.0
HELLO = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


class House:
    """A listening port whose connections answer with what `answer(exchange)` makes of a request."""

    def __init__(self, folder, clock=None, handshake_s=DEADLINE_S):
        self.told, self.requests, self.connections = [], [], set()
        self.body = b"hello"
        self.entropy = SeededEntropy(7)
        self.clock = clock or ManualClock(time.time())
        self.certificates = Certificates(
            folder / "tls", folder, self.clock, self.entropy, InlineBackground(), self.told.append
        )
        self._handshake_s = handshake_s

    def answer(self, exchange):
        self.requests.append(exchange.request)
        exchange.respond(HttpResponse(200, [], self.body))

    async def open(self):
        def secure(transport, connection, first):
            return TlsTransport(transport, connection, first, self.certificates, self._handshake_s)

        limits = ConnectionLimits(1024 * 1024)
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: Connection(self.answer, limits, self.connections, secure), "127.0.0.1", 0
        )
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def connect(self, tls=None, name=None):
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name if tls else None)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    def run(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(coroutine, DEADLINE_S))

    return run


def client(folder, **settings):
    context = ssl.create_default_context(cafile=folder / "tls" / "ca.pem")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name, value in settings.items():
        setattr(context, name, value)
    return context


async def ask(reader, writer, request=HELLO):
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


def authority(folder, now=None):
    now = time.time() if now is None else now
    return obtain(folder / "tls", SeededEntropy(int(now)), now)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_one_port_answers_plain_and_encrypted(run, tmp_path, version):
    authority(tmp_path)

    async def scene():
        house = await House(tmp_path).open()
        tls = client(tmp_path, minimum_version=version, maximum_version=version)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await house.connect(tls, "localhost")
        held = writer.get_extra_info("ssl_object")
        assert held.selected_alpn_protocol() == "http/1.1" and held.version() == version.name.replace("v1_", "v1.")
        for _ in range(3):
            assert await ask(reader, writer) == (200, b"hello")
        plain_reader, plain_writer = await house.connect()
        assert await ask(plain_reader, plain_writer) == (200, b"hello")
        assert [is_secure(request) for request in house.requests] == [True, True, True, False]
        writer.close()
        plain_writer.close()
        await until(lambda: not house.connections)
        house.server.close()

    run(scene())


def test_older_versions_of_tls_are_refused(run, tmp_path):
    authority(tmp_path)

    async def scene():
        house = await House(tmp_path).open()
        tls = client(tmp_path)
        tls.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await house.connect(tls, "localhost")
        await until(lambda: not house.connections)
        assert house.told == []
        house.server.close()

    run(scene())


def test_a_handshake_may_come_byte_by_byte(run, tmp_path):
    authority(tmp_path)

    async def scene():
        house = await House(tmp_path).open()
        inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client(tmp_path).wrap_bio(inward, outward, server_hostname="localhost")
        reader, writer = await house.connect()

        async def drive(step):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    for byte in outward.read():
                        writer.write(bytes([byte]))
                        await until(lambda: house.connections)
                    inward.write(await reader.read(4_096))

        await drive(tls.do_handshake)
        tls.write(HELLO)
        assert b"hello" in await drive(lambda: tls.read(4_096))
        writer.close()
        house.server.close()

    run(scene())


@pytest.mark.parametrize("begun", [b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"])
def test_a_client_that_stops_in_mid_handshake_is_cut(run, tmp_path, begun):
    async def scene():
        house = await House(tmp_path, handshake_s=0.05).open()
        reader, writer = await house.connect()
        writer.write(begun)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        await until(lambda: not house.connections)
        assert house.told == [] and house.requests == []
        writer.close()
        house.server.close()

    run(scene())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_a_client_that_goes_in_mid_handshake_leaves_nothing(run, tmp_path, end):
    async def scene():
        house = await House(tmp_path).open()
        _, writer = await house.connect()
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        await until(lambda: house.connections)
        getattr(writer.transport, end)()
        await until(lambda: not house.connections)
        assert house.told == []
        house.server.close()

    run(scene())


def test_garbage_is_answered_by_an_alert_and_closed(run, tmp_path):
    async def scene():
        house = await House(tmp_path).open()
        reader, writer = await house.connect()
        writer.write(b"\x16\x03\x01\x00\x05HELLO" * 3)
        assert (await reader.read())[:1] in (b"\x15", b"")
        await until(lambda: not house.connections)
        assert house.told == [] and house.requests == []
        writer.close()
        house.server.close()

    run(scene())


def test_tls_begins_with_the_first_byte_or_not_at_all(run, tmp_path):
    async def scene():
        house = await House(tmp_path).open()
        reader, writer = await house.connect()
        assert await ask(reader, writer) == (200, b"hello")
        assert (await ask(reader, writer, b"\x16\x03\x01\x00\x05"))[0] == 400
        writer.close()
        house.server.close()

    run(scene())


def test_a_client_that_does_not_trust_us_is_said_so_once(run, tmp_path):
    async def scene():
        house = await House(tmp_path).open()
        with socket.create_connection(("127.0.0.1", house.port)) as raw, pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(ssl.create_default_context().wrap_socket, raw, server_hostname="localhost")
        await until(lambda: not house.connections)
        assert house.told == [ADVICE]
        house.server.close()

    run(scene())


def test_what_cannot_be_read_closes_the_connection_and_says_why(run, tmp_path):
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / SOURCE).write_text("nothing")

    async def scene():
        house = await House(tmp_path).open()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await house.connect(ssl.create_default_context(), "localhost")
        await until(lambda: not house.connections)
        (text,) = house.told
        assert text.startswith("certificates for TLS cannot be made: ") and SOURCE in text
        house.server.close()

    run(scene())


def test_an_answer_waits_for_a_client_that_reads_late(run, tmp_path):
    authority(tmp_path)

    async def scene():
        house = await House(tmp_path).open()
        house.body = bytes(range(256)) * 64 * 1024
        reader, writer = await house.connect(client(tmp_path), "localhost")
        writer.write(HELLO * 3)
        await until(lambda: len(house.requests) >= 1)
        (connection,) = house.connections
        await until(lambda: connection._paused)
        for _ in range(3):
            assert (await ask(reader, writer, b""))[1] == house.body
        writer.close()
        await until(lambda: not house.connections)
        house.server.close()

    run(scene())


def test_a_refusal_can_be_read_while_the_client_still_sends(run, tmp_path):
    authority(tmp_path)

    async def scene():
        house = await House(tmp_path).open()
        reader, writer = await house.connect(client(tmp_path), "localhost")
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + bytes(4_000_000))
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"413"
        writer.close()
        await until(lambda: not house.connections)
        house.server.close()

    run(scene())


@pytest.mark.parametrize(("kind", "secure"), [(HttpRequest, "false"), (SecureRequest, "true"), (None, "false")])
def test_policies_are_told_whether_a_caller_came_by_tls(kind, secure):
    request = None if kind is None else kind("GET", "/", {})
    ctx = SimpleNamespace(now=0.0, scope=Scope(), request=request)
    assert request_keys(ctx)["aws:securetransport"] == [secure]


# -- certificates -----------------------------------------------------------------------------------------------------


def names_of(certificate):
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


async def served(house, name="localhost"):
    tls = ssl._create_unverified_context()
    _, writer = await house.connect(tls, name)
    found = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(True))
    writer.close()
    return found


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("localhost", True), ("a1b2.execute-api.us-east-1.localhost", True), ("docs.s3.amazonaws.com", True),
        ("my.docs.s3.eu-west-1.amazonaws.com", True), ("x.lambda-url.us-east-1.on.aws", True), ("example.com", False),
        ("notlocalhost", False), ("amazonaws.com.example.com", False), ("", False), ("-.localhost", False),
        ("a..localhost", False), ("a" * 64 + ".localhost", False), ("*.localhost", False),
        (".".join(["a" * 60] * 5) + ".localhost", False),
    ],
)  # fmt: skip
def test_names_that_the_authority_speaks_for(name, known):
    assert covers(name) is known


def test_the_authority_can_vouch_for_nothing_else(tmp_path):
    made = authority(tmp_path)
    store = Store([made.certificate])
    for name in ("localhost", "a.b.localhost", "s3.amazonaws.com", "example.com"):
        leaf = x509.load_pem_x509_certificate(made.issue((name,), made.key.public_key(), 5, time.time()))
        verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(name))
        if covers(name):
            assert verifier.verify(leaf, [])[-1] == made.certificate
        else:
            with pytest.raises(VerificationError):
                verifier.verify(leaf, [])


def test_a_named_host_gets_a_certificate_of_its_own_kept_for_the_next(run, tmp_path):
    async def scene():
        house = await House(tmp_path).open()
        first, again = await served(house, "docs.s3.amazonaws.com"), await served(house, "DOCS.s3.amazonaws.com")
        assert first == again and names_of(first)[0] == "docs.s3.amazonaws.com"
        assert names_of(await served(house, "example.com")) == names_of(await served(house))
        house.server.close()
        held = house.certificates
        for number in range(KNOWN_NAMES + 5):
            held._choose(type("Handshake", (), {})(), f"b{number}.s3.amazonaws.com", None)
        assert len(held._named) == KNOWN_NAMES and "docs.s3.amazonaws.com" not in held._named

    run(scene())


def test_certificates_are_renewed_before_their_end(run, tmp_path):
    async def scene():
        clock = ManualClock(time.time())
        house = await House(tmp_path, clock).open()
        first = await served(house)
        assert first.not_valid_after_utc.timestamp() == pytest.approx(clock.now() + LEAF_S, abs=2)
        clock.advance(LEAF_S - RENEW_S - 5)
        assert await served(house) == first
        clock.advance(10)
        second = await served(house)
        assert second.not_valid_after_utc.timestamp() == pytest.approx(clock.now() + LEAF_S, abs=2)
        assert second.issuer == first.issuer
        house.server.close()

    run(scene())


def test_when_renewing_fails_what_there_was_goes_on(run, tmp_path):
    async def scene():
        clock = ManualClock(time.time())
        house = await House(tmp_path, clock).open()
        first = await served(house)
        (tmp_path / "tls" / SOURCE).write_text("nothing")
        clock.advance(LEAF_S - RENEW_S + 5)
        assert await served(house) == first and len(house.told) == 1
        house.server.close()

    run(scene())


def test_the_authority_stays_until_it_could_not_outlive_what_it_issues(tmp_path):
    begin = time.time()
    first = authority(tmp_path, begin)
    assert first.ends_at == pytest.approx(begin + LIFETIME_S, abs=2)
    last = begin + LIFETIME_S - LEAF_S - RENEW_S
    assert authority(tmp_path, last - 5).certificate == first.certificate
    renewed = authority(tmp_path, last + 5)
    assert renewed.certificate != first.certificate and renewed.certificate.subject != first.certificate.subject
    assert (tmp_path / "tls" / "runtime" / "preheat-ca.pem").read_bytes() == (tmp_path / "tls" / "ca.pem").read_bytes()


def test_the_key_is_its_owners_and_nobody_makes_two(tmp_path):
    made = []

    def make(seed):
        made.append(obtain(tmp_path / "tls", SeededEntropy(seed), time.time()).certificate)

    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(made) == 8 and len(set(made)) == 1
    folder = tmp_path / "tls"
    assert stat.S_IMODE((folder / SOURCE).stat().st_mode) == 0o600
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in folder.rglob("*.pem"))
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "ca-cert.pem", SOURCE, "ca.pem", "preheat-ca.pem",
    ]  # fmt: skip


def test_functions_get_the_usual_roots_and_the_authority(tmp_path):
    import botocore

    told = []
    trust = Trust(tmp_path / "tls", SeededEntropy(1), told.append)
    variables = trust.variables()
    bundle = variables["AWS_CA_BUNDLE"]
    assert variables == {
        "AWS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle,
        "NODE_EXTRA_CA_CERTS": str(tmp_path / "tls" / "runtime" / "preheat-ca.pem"),
    }  # fmt: skip
    held = set(ssl.create_default_context(cafile=bundle).get_ca_certs(binary_form=True))
    usual = ssl.create_default_context(cafile=Path(botocore.__file__).with_name("cacert.pem"))
    assert held.issuperset(usual.get_ca_certs(binary_form=True))
    assert ssl.PEM_cert_to_DER_cert((tmp_path / "tls" / "ca.pem").read_text()) in held
    before = Path(bundle).stat().st_mtime_ns
    assert lay_out(tmp_path / "tls", SeededEntropy(2)) == Path(bundle).parent
    assert Path(bundle).stat().st_mtime_ns == before and told == []


def test_functions_run_without_where_nothing_can_be_written(tmp_path):
    (tmp_path / "tls").write_text("a file")
    told = []
    trust = Trust(tmp_path / "tls", SeededEntropy(1), told.append)
    assert trust.variables() == {} and trust.directory() is None
    assert len(told) == 1 and told[0].startswith("functions do not trust this server over TLS: ")
