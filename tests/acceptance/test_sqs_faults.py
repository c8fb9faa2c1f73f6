"""Queues of a live server under misfortune: a disk that refuses writes, deaths between receive and delete."""

import resource
import threading

import pytest
from botocore.exceptions import ClientError

from tests.support.queues import bodies, delete, depths, make, receive, redrive, send
from tests.support.server import wait_for

LARGE = "x" * 900_000


def refuse_growth(server):
    """No file of the server may grow any more. Returns what lets them."""
    wal = server.state / "preheat.db-wal"
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, before[1]))
    return lambda: resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_sends_and_loses_nothing(fresh_server):
    server = fresh_server()
    sqs = server.client("sqs")
    urls = [make(sqs, "full"), make(sqs, "full.fifo", ContentBasedDeduplication="true")]
    groups = (None, "g")
    for url, group in zip(urls, groups, strict=True):
        send(sqs, url, "before", group)
    recover = refuse_growth(server)
    acknowledged = [["before"], ["before"]]
    for at in range(12):
        for number, (url, group) in enumerate(zip(urls, groups, strict=True)):
            body = f"{at}{LARGE}"
            try:
                send(sqs, url, body, group)
            except ClientError as error:
                answer = error.response
                assert answer["ResponseMetadata"]["HTTPStatusCode"] == 503
                assert answer["Error"]["Code"] == "ServiceUnavailable"
                assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-query-error"] == "ServiceUnavailable;Receiver"
            else:
                acknowledged[number].append(body)
    assert max(map(len, acknowledged)) < 12, "the disk did refuse"
    assert server.get("/_preheat/health")[0] == 200
    recover()
    for number, (url, group) in enumerate(zip(urls, groups, strict=True)):
        body = f"11{LARGE}"
        wait_for(lambda: accepted(sqs, url, body, group), what="the disk to take writes again")  # noqa: B023
        acknowledged[number].append(body)
    server.kill()
    server.start()
    sqs = server.client("sqs")
    for number, url in enumerate(urls):
        found = []
        while got := receive(sqs, url, VisibilityTimeout=600):
            found += bodies(got)
            for message in got:
                delete(sqs, url, message)
        assert sorted(found) == sorted(set(acknowledged[number])), "what was acknowledged, and nothing else"


def accepted(sqs, url, body, group):
    try:
        return send(sqs, url, body, group)
    except ClientError:
        return None


POINTS = ("after the receive", "after the work", "after the delete", "deletes twice", "before the receive")


@pytest.mark.parametrize("suffix", ("", ".fifo"))
def test_a_server_and_a_consumer_that_die_between_receive_and_delete(fresh_server, suffix):
    server = fresh_server()
    sqs = server.client("sqs")
    fifo = {"ContentBasedDeduplication": "true"} if suffix else {}
    make(sqs, f"dead{suffix}")
    url = make(sqs, f"work{suffix}", RedrivePolicy=redrive(f"dead{suffix}", 5), VisibilityTimeout=30, **fifo)
    for point in POINTS:
        send(sqs, url, point, point.replace(" ", "-") if suffix else None)
        if point == "before the receive":
            continue
        (message,) = receive(sqs, url)
        assert message["Body"] == point
        if "delete" in point:
            for _ in range(1 + (point == "deletes twice")):
                delete(sqs, url, message)
    server.kill()
    server.start()
    sqs = server.client("sqs")
    (untouched,) = receive(sqs, url)
    assert untouched["Body"] == "before the receive", "the others are still hidden, or gone"
    delete(sqs, url, untouched)
    server.advance(31)
    again = receive(sqs, url)
    assert sorted(bodies(again)) == ["after the receive", "after the work"]
    assert [one["Attributes"]["ApproximateReceiveCount"] for one in again] == ["2", "2"]
    for message in again:
        delete(sqs, url, message)
    assert depths(sqs, url) == (0, 0, 0)


def test_many_consumers_on_one_queue_get_each_message_once(fresh_server):
    server = fresh_server()
    sqs = server.client("sqs")
    url = make(sqs, "shared", VisibilityTimeout=300)
    for start in range(0, 200, 10):
        sqs.send_message_batch(
            QueueUrl=url, Entries=[{"Id": str(at), "MessageBody": str(start + at)} for at in range(10)]
        )
    seen, lock = [], threading.Lock()

    def consume():
        client = server.client("sqs")
        while got := receive(client, url):
            with lock:
                seen.extend(bodies(got))
            for message in got:
                delete(client, url, message)

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(map(int, seen)) == list(range(200)) and depths(sqs, url) == (0, 0, 0)
