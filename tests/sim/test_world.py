"""The product under a virtual clock, with seeded faults and invariant checkers."""

import pytest

from preheat.simulate.checkers import ConcurrencyBound, DeliveredAtMost, NothingLost, OnePlace
from preheat.simulate.faults import Behaviour
from preheat.simulate.workloads import check, queue_with_worker, send_steadily, take_stock
from preheat.simulate.world import World


def run(tmp_path, seed, *, behaviour=None, rate=20.0, seconds=60.0, drain=600.0, crash_at=(), **stack_settings):
    world = World(seed, tmp_path / f"w{seed}-{len(crash_at)}", behaviour or Behaviour())
    stack = queue_with_worker(world, **stack_settings)
    lost, once = NothingLost(), OnePlace()
    check(world, [lost, once])
    for number, statement in enumerate(crash_at):
        world.at(world.clock.now() + 1 + number * seconds / 3, lambda statement=statement: world.db.arm(statement))
    send_steadily(world, stack.queue, rate, seconds)
    world.run(seconds + drain)
    world.db.disarm()
    counts = take_stock(world, stack)
    return world, stack, counts, [*lost.violations(), *once.violations()]


def test_every_message_is_processed_and_the_queue_is_empty(tmp_path):
    _, _, counts, violations = run(tmp_path, 1)
    assert violations == [] and counts == {"work": 0, "dead": 0}


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_same_seed_same_trace(tmp_path, seed):
    faults = Behaviour(error_rate=0.1, crash_rate=0.05)
    first = run(tmp_path / "a", seed, behaviour=faults, seconds=30)[0].trace()
    second = run(tmp_path / "b", seed, behaviour=faults, seconds=30)[0].trace()
    other = run(tmp_path / "c", seed + 100, behaviour=faults, seconds=30)[0].trace()
    assert first == second
    assert first != other


@pytest.mark.parametrize("seed", [21, 22])
def test_failing_functions_lose_nothing_and_dead_letter_exactly_at_the_count(tmp_path, seed):
    world = World(seed, tmp_path / "w", Behaviour(error_rate=0.5, crash_rate=0.1))
    stack = queue_with_worker(world, max_receives=3)
    lost, most, once = NothingLost(), DeliveredAtMost(3), OnePlace()
    check(world, [lost, most, once])
    send_steadily(world, stack.queue, 20, 30)
    world.run(30 + 600)
    counts = take_stock(world, stack)
    assert [*lost.violations(), *most.violations(), *once.violations()] == []
    assert counts["work"] == 0 and counts["dead"] > 0
    dead = {row["body"] for row in world.db.all("SELECT body FROM sqs_messages")}
    assert {most.deliveries[body] for body in dead} == {3}


def test_maximum_concurrency_is_never_exceeded(tmp_path):
    world = World(31, tmp_path / "w", Behaviour(mean_s=1.0))
    stack = queue_with_worker(world, reserved=10, maximum_concurrency=4)
    bound, lost = ConcurrencyBound(4), NothingLost()
    check(world, [bound, lost])
    send_steadily(world, stack.queue, 40, 20)
    world.run(20 + 1_200)
    counts = take_stock(world, stack)
    assert bound.peak == 4 and bound.violations() == [] and lost.violations() == []
    assert counts == {"work": 0, "dead": 0}
    assert world.notices == []


def test_reserved_concurrency_without_maximum_burns_receives_and_is_said(tmp_path):
    """The trap of the production stack: throttled polls use up the receive count of valid messages."""
    world = World(32, tmp_path / "w", Behaviour(mean_s=5.0))
    stack = queue_with_worker(world, reserved=2, visibility_s=15)
    bound, lost = ConcurrencyBound(2), NothingLost()
    check(world, [bound, lost])
    send_steadily(world, stack.queue, 30, 20)
    world.run(20 + 3_600)
    counts = take_stock(world, stack)
    assert bound.peak == 2 and lost.violations() == []
    assert counts["dead"] > 0
    assert any("MaximumConcurrency" in notice.text for notice in world.notices)


@pytest.mark.parametrize("statement", [*range(1, 60, 7), 97, 203, 401, 809])
def test_a_crash_at_any_statement_loses_nothing(tmp_path, statement):
    world, _, counts, violations = run(
        tmp_path, 41, crash_at=(statement, statement + 3), seconds=60, behaviour=Behaviour(mean_s=0.2)
    )
    assert world.crashes == 2
    assert violations == [] and counts == {"work": 0, "dead": 0}


def test_the_work_for_a_message_is_bounded_and_does_not_grow_with_time(tmp_path):
    """How long an hour of a hundred messages a second takes is measured by `bench/simulated_hour.py`."""
    works = []
    for seconds in (20, 160):
        world = World(51, tmp_path / str(seconds), Behaviour())
        stack = queue_with_worker(world, batch=10, window_s=1)
        lost, statements = NothingLost(), []
        check(world, [lost])
        world.db.trace(statements.append)
        send_steadily(world, stack.queue, 100, seconds)
        world.run(seconds)
        works.append(len(statements) / len(lost.acknowledged))
        world.run(120)
        assert take_stock(world, stack) == {"work": 0, "dead": 0}
        assert lost.violations() == [] and len(lost.acknowledged) == 100 * seconds
    short, long = works
    assert long <= 1.02 * short and short < 20, works
