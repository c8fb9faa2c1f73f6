"""Fair queues in process: a noisy tenant waits for the quiet ones, and only it."""

import json

import pytest

from tests.unit.test_sqs import arn, depths, make, receive, sqs

__all__ = ["sqs"]


def send(sqs, url, tenant, count, **params):
    group = {} if tenant is None else {"MessageGroupId": tenant}
    for number in range(count):
        sqs("SendMessage", QueueUrl=url, MessageBody=f"{tenant} {number}", **group, **params)


def tenants(messages):
    return [message["Body"].split()[0] for message in messages]


def noisy_queue(sqs, backlog=100, in_flight=40, **settings):
    """A queue whose tenant "loud" has `in_flight` messages in flight and `backlog` waiting."""
    url = make(sqs, **{"VisibilityTimeout": 600, **settings})
    send(sqs, url, "loud", backlog + in_flight)
    for _ in range(in_flight // 10):
        assert tenants(receive(sqs, url)) == ["loud"] * 10
    return url


def test_quiet_tenants_come_before_the_backlog_of_a_noisy_one(sqs):
    url = noisy_queue(sqs)
    send(sqs, url, "quiet", 3)
    send(sqs, url, "still", 2)
    messages = receive(sqs, url, AttributeNames=["MessageGroupId"])
    assert sorted(tenants(messages)) == ["loud"] * 5 + ["quiet"] * 3 + ["still"] * 2
    assert {message["Attributes"]["MessageGroupId"] for message in messages} == {"loud", "quiet", "still"}
    assert tenants(receive(sqs, url)) == ["loud"] * 10, "a noisy tenant is not held up when nobody else waits"
    assert depths(sqs, url) == (85, 60, 0)


def test_without_a_noisy_tenant_the_oldest_come_first(sqs):
    url = noisy_queue(sqs, backlog=20, in_flight=20)
    send(sqs, url, "quiet", 3)
    assert tenants(receive(sqs, url)) == ["loud"] * 10


def test_of_several_noisy_tenants_the_one_with_fewest_in_flight_is_first(sqs):
    url = make(sqs, VisibilityTimeout=600)
    for tenant, count in (("big", 60), ("small", 40)):
        send(sqs, url, tenant, count)
    while receive(sqs, url):
        continue
    send(sqs, url, "big", 10)
    send(sqs, url, "small", 10)
    assert tenants(receive(sqs, url)) == ["small"] * 10
    send(sqs, url, "quiet", 1)
    assert tenants(receive(sqs, url)) == ["quiet"] + ["big"] * 9


@pytest.mark.parametrize("how", ["delete", "time", "visibility"])
def test_a_tenant_is_noisy_only_while_its_messages_are_in_flight(sqs, how):
    url = make(sqs, VisibilityTimeout=60)
    send(sqs, url, "loud", 140)
    held = [message for _ in range(4) for message in receive(sqs, url)]
    send(sqs, url, "quiet", 3)
    if how == "time":
        sqs.world.advance(60)
    for message in held if how != "time" else []:
        handle = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
        if how == "delete":
            sqs("DeleteMessage", **handle)
        else:
            sqs("ChangeMessageVisibility", **handle, VisibilityTimeout=0)
    assert tenants(receive(sqs, url)) == ["loud"] * 10


def test_messages_without_a_group_are_quiet_before_and_after(sqs):
    url = make(sqs, VisibilityTimeout=600)
    send(sqs, url, None, 2, DelaySeconds=5)
    send(sqs, url, "loud", 140)
    for _ in range(4):
        receive(sqs, url)
    send(sqs, url, None, 3)
    messages = receive(sqs, url, AttributeNames=["All"])
    assert tenants(messages) == ["None"] * 3 + ["loud"] * 7
    assert "MessageGroupId" not in messages[0]["Attributes"]
    sqs.world.advance(5)
    while (messages := tenants(receive(sqs, url))) and "None" not in messages:
        assert messages == ["loud"] * 10
    assert messages.count("None") == 2


def test_hundreds_of_tenants_take_turns(sqs):
    url = noisy_queue(sqs, in_flight=100)
    for number in range(200):
        send(sqs, url, f"t{number:03}", 2)
    seen = [tenant for _ in range(40) for tenant in tenants(receive(sqs, url))]
    assert "loud" not in seen and len(seen) == 400 and len(set(seen)) == 200
    assert tenants(receive(sqs, url)) == ["loud"] * 10


def test_an_undone_operation_does_not_spoil_the_counts(sqs):
    url = noisy_queue(sqs)
    world = sqs.world

    def fails(ctx):
        ctx.call("sqs", "ReceiveMessage", {"QueueUrl": url, "MaxNumberOfMessages": 10})
        raise ValueError

    world.machine.perform(fails, lambda reply: None, world.scope)
    world.settle()
    world.defects.clear()
    send(sqs, url, "quiet", 1)
    assert tenants(receive(sqs, url)) == ["quiet"] + ["loud"] * 9
    assert depths(sqs, url) == (91, 50, 0)


def test_dead_letters_expiry_and_purge(sqs):
    dead = make(sqs, "dead", VisibilityTimeout=600)
    policy = json.dumps({"deadLetterTargetArn": arn(sqs, dead), "maxReceiveCount": 1})
    url = make(sqs, "q", VisibilityTimeout=1, RedrivePolicy=policy, MessageRetentionPeriod=100)
    send(sqs, url, "loud", 40)
    while receive(sqs, url):
        continue
    sqs.world.advance(1)
    assert receive(sqs, url) == [] and depths(sqs, dead) == (40, 0, 0)
    while receive(sqs, dead):
        continue
    send(sqs, dead, "loud", 5)
    send(sqs, dead, "quiet", 1)
    assert tenants(receive(sqs, dead))[0] == "quiet"
    sqs("PurgeQueue", QueueUrl=dead)
    send(sqs, dead, "loud", 1)
    send(sqs, dead, "quiet", 1)
    assert tenants(receive(sqs, dead)) == ["loud", "quiet"]
    send(sqs, url, "late", 40)
    for _ in range(4):
        receive(sqs, url, VisibilityTimeout=3_000)
    sqs.world.advance(101)
    assert depths(sqs, url) == (0, 0, 0)
    send(sqs, url, "late", 1)
    send(sqs, url, "quiet", 1)
    assert tenants(receive(sqs, url)) == ["late", "quiet"], "what expired in flight no longer counts"
