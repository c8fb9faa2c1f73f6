"""HTTP/1.1 as bytes on a socket: what is answered, refused, held back, and forgotten."""

import asyncio
import queue
import socket
import threading

import pytest
import uvloop

from preheat.gateway.connection import Connection, ConnectionLimits
from preheat.kernel.http import HttpResponse
from preheat.kernel.stream import Channel, FileSlice
from tests.support.server import wait_for

MAX_BODY = 100_000


class Front:
    """A listener on a thread of its own. `seen` gets every exchange; `handler` answers it unless it is None."""

    def __init__(self, handler=None):
        self.seen = queue.Queue()
        self.defects = []
        self.connections = set()
        self._handler = handler
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda loop, context: self.defects.append(context["message"]))
        limits = ConnectionLimits(MAX_BODY)
        make = lambda: Connection(self._handle, limits, self.connections)  # noqa: E731
        server = await self.loop.create_server(make, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        for connection in list(self.connections):
            connection.close_when_idle()
        server.close()
        await server.wait_closed()

    def _handle(self, exchange):
        self.seen.put(exchange)
        if self._handler is not None:
            self._handler(exchange)

    def call(self, function, *arguments):
        """Run on the server's thread, and wait for it."""
        done = queue.Queue()
        self.loop.call_soon_threadsafe(lambda: done.put(function(*arguments)))
        return done.get(timeout=60)

    def connect(self, **options):
        client = socket.socket()
        for option, value in options.items():
            client.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
        client.settimeout(10)
        client.connect(("127.0.0.1", self.port))
        return client

    def close(self):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)


@pytest.fixture
def front():
    made = []

    def make(handler=None):
        made.append(Front(handler))
        return made[-1]

    yield make
    for one in made:
        one.close()


def echo(exchange):
    request = exchange.request
    text = f"{request.method} {request.target} {len(request.body)}".encode()
    exchange.respond(HttpResponse(200, [("Content-Type", "text/plain")], text))


def read_all(client):
    parts = []
    while data := client.recv(65_536):
        parts.append(data)
    return b"".join(parts)


def read_until(client, end, data=b""):
    while end not in data:
        more = client.recv(65_536)
        assert more, data
        data += more
    return data


def ask(front, *parts):
    """Send, then all that comes until the server closes."""
    with front.connect() as client:
        for part in parts:
            client.sendall(part)
        return read_all(client)


def bodies(answer):
    """[(status, body)] of answers with a Content-Length."""
    out = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", 0))
        out.append((int(head.split()[1]), rest[:length]))
        answer = rest[length:]
    return out


LAST = b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n"


def test_pipelined_requests_are_answered_in_order_whenever_their_answers_come(front):
    server = front()
    with server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n" + LAST)
        exchanges = [server.seen.get(timeout=60) for _ in range(3)]
        for exchange in reversed(exchanges):
            server.call(echo, exchange)
        assert bodies(read_all(client)) == [(200, b"GET /1 0"), (200, b"GET /2 0"), (200, b"GET /last 0")]


def test_a_connection_lives_until_it_is_asked_to_close(front):
    answer = ask(front(echo), b"GET /1 HTTP/1.1\r\n\r\n", LAST)
    first, second = answer.split(b"HTTP/1.1 200 OK")[1:]
    assert b"Connection" not in first and b"Connection: close" in second


def test_http_1_0_ends_after_its_answer_even_if_it_asks_for_more(front):
    server = front(echo)
    assert bodies(ask(server, b"GET /a HTTP/1.0\r\n\r\n")) == [(200, b"GET /a 0")]
    assert bodies(ask(server, b"GET /b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")) == [(200, b"GET /b 0")]


def test_bytes_after_the_last_request_do_no_harm(front):
    server = front()
    with server.connect() as client:
        client.sendall(LAST + b"GET /more HTTP/1.1\r\n\r\n")
        server.call(echo, server.seen.get(timeout=60))
        assert bodies(read_all(client)) == [(200, b"GET /last 0")]
    assert server.seen.empty()


def test_head_has_the_length_and_no_body(front, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 500)
    kinds = {"/bytes": b"x" * 300, "/file": FileSlice(tmp_path / "file", 0, 500), "/stream": Channel()}
    server = front(lambda exchange: exchange.respond(HttpResponse(200, [], kinds[exchange.request.path])))
    request = b"HEAD %s HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert ask(server, request % b"/bytes").endswith(b"Content-Length: 300\r\n\r\n")
    assert ask(server, request % b"/file").endswith(b"Content-Length: 500\r\n\r\n")
    assert b"Content-Length" not in ask(server, request % b"/stream") and kinds["/stream"].cancelled


def test_no_body_where_none_may_be(front):
    server = front(lambda exchange: exchange.respond(HttpResponse(204, [], b"not sent")))
    answer = ask(server, LAST)
    assert answer.endswith(b"\r\n\r\n") and b"Content-Length" not in answer


@pytest.mark.parametrize(
    "parts", [(b"5\r\nhello\r\n0\r\n\r\n",), (b"3\r\nhel", b"\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n")]
)
def test_a_chunked_body_is_put_together_and_its_trailers_are_no_headers(front, parts):
    server = front(echo)
    head = b"POST /p HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert bodies(ask(server, head, *parts)) == [(200, b"POST /p 5")]
    request = server.seen.get(timeout=60).request
    assert request.body == b"hello" and "x-sum" not in request.headers


def test_repeated_headers_are_joined(front):
    server = front(echo)
    ask(server, b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nCookie: b=2\r\nConnection: close\r\n\r\n")
    headers = server.seen.get(timeout=60).request.headers
    assert headers["x-a"] == "1,2" and headers["cookie"] == "a=1; b=2"


def test_a_target_that_names_the_host_is_taken_apart(front):
    server = front(echo)
    ask(server, b"GET http://b.s3.localhost:1/key?x=1 HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")
    request = server.seen.get(timeout=60).request
    assert (request.target, request.headers["host"]) == ("/key?x=1", "b.s3.localhost:1")


def test_an_offer_to_upgrade_is_passed_over_and_the_body_is_kept(front):
    server = front(echo)
    head = b"POST /u HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    with server.connect() as client:
        client.sendall(head + b"Content-Length: 5\r\n\r\nhe")
        client.sendall(b"llo" + LAST)
        assert bodies(read_all(client)) == [(200, b"POST /u 5"), (200, b"GET /last 0")]
    assert server.seen.get(timeout=60).request.body == b"hello"


def test_continue_is_said_once_and_only_when_the_body_may_come(front):
    server = front(echo)
    head = b"PUT /big HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with server.connect() as client:
        client.sendall(head % 3)
        assert read_until(client, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert bodies(read_all(client)) == [(200, b"PUT /big 3")]
    with server.connect() as client:
        client.sendall(head % (MAX_BODY + 1))
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_continue_waits_for_the_answers_before_it(front):
    server = front()
    with server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        server.call(echo, server.seen.get(timeout=60))
        data = read_until(client, b"100 Continue\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 200 OK") and data.endswith(b"GET /1 0HTTP/1.1 100 Continue\r\n\r\n")


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nContent-Length: five\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nBad Header\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_and_nothing_is_done(front, data):
    server = front(echo)
    ((status, text),) = bodies(ask(server, data))
    assert status == 400 and b"not valid HTTP" in text and server.seen.empty()


def test_a_refusal_waits_for_the_answers_before_it(front):
    server = front()
    with server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nNONSENSE\r\n\r\n")
        server.call(echo, server.seen.get(timeout=60))
        assert [status for status, _ in bodies(read_all(client))] == [200, 400]


def test_connect_is_refused(front):
    server = front(echo)
    assert ask(server, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert server.seen.empty()


@pytest.mark.parametrize("line", [b"X-Long: " + b"a" * 3_000_000, b"X-A: b\r\n" * 300_000])
def test_headers_over_a_megabyte(front, line):
    server = front(echo)
    ((status, _),) = bodies(ask(server, b"GET / HTTP/1.1\r\n" + line))
    assert status == 431 and server.seen.empty()


def test_endless_trailers_are_headers_too(front):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    assert ask(front(echo), head + b"X-Long: " + b"a" * 3_000_000).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_on_sending_too_much_can_read_the_refusal(front, chunked):
    server = front(echo)
    size = 20_000_000
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    with server.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        for _ in range(size // 500_000):
            client.sendall((b"7a120\r\n" if chunked else b"") + b"x" * 500_000 + (b"\r\n" if chunked else b""))
        ((status, _),) = bodies(read_all(client))
    assert status == 413 and server.seen.empty()
    wait_for(lambda: not server.connections, what="the connection's end")


def test_a_body_of_the_limit_is_taken(front):
    request = b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % MAX_BODY
    assert bodies(ask(front(echo), request + b"x" * MAX_BODY)) == [(200, b"POST / %d" % MAX_BODY)]


def test_a_request_that_breaks_off_is_not_done(front):
    server = front(echo)
    with server.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
        wait_for(lambda: server.connections)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    wait_for(lambda: not server.connections, what="the connection's end")
    assert server.seen.empty()


def test_a_defect_of_the_handler_is_a_500_and_is_reported(front):
    def broken(exchange):
        raise RuntimeError("oh")

    server = front(broken)
    assert [status for status, _ in bodies(ask(server, b"GET / HTTP/1.1\r\n\r\n" + LAST))] == [500, 500]
    assert server.defects == ["defect in a front door"] * 2


def test_line_breaks_in_a_header_make_no_header(front):
    server = front(lambda exchange: exchange.respond(HttpResponse(200, [("X-A", "b\r\nSet-Cookie: c=d\ne")], b"")))
    answer = ask(server, LAST)
    assert b"X-A: b  Set-Cookie: c=d e\r\n" in answer


# -- files and streams ------------------------------------------------------------------------------------------------


def test_a_file_is_sent_in_its_turn_and_the_connection_goes_on(front, tmp_path):
    content = bytes(range(256)) * 20_000
    (tmp_path / "file").write_bytes(content)

    def serve(exchange):
        body = FileSlice(tmp_path / "file", 10, len(content) - 10) if exchange.request.path == "/file" else b"small"
        exchange.respond(HttpResponse(200, [], body))

    server = front(serve)
    file = b"GET /file HTTP/1.1\r\n\r\n"
    answers = bodies(ask(server, b"GET / HTTP/1.1\r\n\r\n" + file + file + LAST))
    assert answers == [(200, b"small"), (200, content[10:]), (200, content[10:]), (200, b"small")]
    assert bodies(ask(server, b"GET /file HTTP/1.0\r\n\r\n")) == [(200, content[10:])]


@pytest.mark.parametrize("length", [None, 5])
def test_a_file_that_is_not_there_or_too_short_is_a_500(front, tmp_path, length):
    if length is not None:
        (tmp_path / "file").write_bytes(b"x" * length)
    server = front(lambda exchange: exchange.respond(HttpResponse(200, [], FileSlice(tmp_path / "file", 0, 10))))
    answers = bodies(ask(server, b"GET / HTTP/1.1\r\n\r\n" + LAST))
    assert answers == [(500, b"the body's file cannot be read")] * 2 and len(server.defects) == 2


def stream_to(front, request):
    """(server, client, exchange, channel) of a stream that has begun."""
    server = front()
    client = server.connect(SO_RCVBUF=16_384)
    client.sendall(request)
    exchange, channel = server.seen.get(timeout=60), Channel()
    server.call(exchange.respond, HttpResponse(200, [("Content-Type", "text/plain")], channel))
    return server, client, exchange, channel


def test_chunks_leave_as_they_come_and_the_next_answer_follows(front):
    server, client, _, channel = stream_to(front, b"GET / HTTP/1.1\r\n\r\n" + LAST)
    with client:
        server.call(channel.send, b"one")
        assert read_until(client, b"3\r\none\r\n").count(b"HTTP/1.1") == 1
        server.call(echo, server.seen.get(timeout=60))
        server.call(channel.send, b"")
        server.call(channel.send, b"three")
        server.call(channel.close)
        rest = read_all(client)
        assert rest.startswith(b"5\r\nthree\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n") and rest.endswith(b"GET /last 0")


def test_a_stream_to_http_1_0_is_not_chunked(front):
    server, client, _, channel = stream_to(front, b"GET / HTTP/1.0\r\n\r\n")
    with client:
        server.call(channel.send, b"one")
        server.call(channel.close)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head and body == b"one"


def test_a_stream_that_fails_has_no_end(front):
    server, client, _, channel = stream_to(front, b"GET / HTTP/1.1\r\n\r\n")
    with client:
        server.call(channel.send, b"one")
        read_until(client, b"3\r\none\r\n")
        server.call(channel.close, RuntimeError("half-way"))
        assert read_all(client) == b""


def test_a_slow_reader_pauses_the_stream_and_its_own_requests(front):
    server, client, _, channel = stream_to(front, b"GET / HTTP/1.1\r\n\r\n")
    with client:
        sent = 0
        while not channel.paused:
            server.call(channel.send, b"x" * 65_536)
            sent += 65_536
            assert sent < 50_000_000, "nothing holds the producer back"
        client.sendall(LAST)
        got = read_until(client, b"\r\n\r\n")
        while len(got) < sent:
            got += client.recv(65_536)
        wait_for(lambda: not channel.paused, what="the stream's going on")
        server.call(channel.close)
        server.call(echo, server.seen.get(timeout=60))
        assert read_all(client).endswith(b"GET /last 0")


def test_a_stream_that_begins_while_the_client_does_not_read_begins_paused(front):
    server = front()
    with server.connect(SO_RCVBUF=16_384) as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        first, second, channel = server.seen.get(timeout=60), server.seen.get(timeout=60), Channel()
        server.call(first.respond, HttpResponse(200, [], b"x" * 20_000_000))
        server.call(second.respond, HttpResponse(200, [], channel))
        assert channel.paused


def test_a_client_that_leaves_cancels_its_stream(front):
    _, client, _, channel = stream_to(front, b"GET / HTTP/1.1\r\n\r\n")
    client.close()
    wait_for(lambda: channel.cancelled, what="the cancelling")


def test_a_client_that_leaves_is_told_to_every_request_that_waits(front):
    server = front()
    with server.connect() as client:
        client.sendall(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        exchanges = [server.seen.get(timeout=60) for _ in range(2)]
        gone, late = queue.Queue(), Channel()
        for exchange in exchanges:
            exchange.on_gone = lambda: gone.put(True)
    assert gone.get(timeout=60) and gone.get(timeout=60)
    server.call(exchanges[0].respond, HttpResponse(200, [], late))
    assert late.cancelled


def test_a_client_that_asks_and_asks_is_not_read_from_until_it_is_answered(front):
    server = front()
    request = b"GET / HTTP/1.1\r\nX-Filler: %s\r\n\r\n" % (b"a" * 900)
    with server.connect() as client:
        client.setblocking(False)
        sent = 0
        try:
            while sent < 50_000_000:
                sent += client.send(request * 100)
        except BlockingIOError:
            pass
        assert sent < 50_000_000
        wait_for(lambda: any(one._held for one in list(server.connections)), what="the holding back")
        client.settimeout(10)
        answer = len(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nGET / 0")
        answered = received = 0

        def answer_all():
            count = 0
            while not server.seen.empty():
                echo(server.seen.get())
                count += 1
            return count

        while answered < sent // len(request):
            answered += server.call(answer_all)
            while received < answered * answer:
                received += len(client.recv(1_000_000))
