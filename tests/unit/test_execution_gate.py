"""Admission: concurrency, reservations, provisioned units, rates; pure arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preheat.execution.contract import Throttled
from preheat.execution.gate import Gate, Lane

ACCOUNT = Throttled("ConcurrentInvocationLimitExceeded")
RESERVED = Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")


def kinds(answers):
    """What each answer was: "ok" when it was let in, else the throttle."""
    return ["ok" if isinstance(answer, Lane) else answer for answer in answers]


def test_the_account_limit_is_shared_by_all():
    gate = Gate(account_limit=3)
    lanes = [gate.admit(name, 0.0) for name in ("a", "b", "a")]
    assert kinds(lanes) == ["ok"] * 3
    assert gate.admit("c", 0.0) == ACCOUNT
    gate.release(lanes[0])
    assert isinstance(gate.admit("c", 0.0), Lane)
    assert gate.in_flight == {"a": 1, "b": 1, "c": 1}


def test_a_reservation_is_a_cap_and_a_guarantee():
    gate = Gate(account_limit=5)
    gate.set_reserved("a", 2, 0.0)
    assert gate.unreserved_limit == 3
    assert kinds(gate.admit("b", 0.0) for _ in range(4)) == ["ok", "ok", "ok", ACCOUNT]
    assert kinds(gate.admit("a", 0.0) for _ in range(3)) == ["ok", "ok", RESERVED]


def test_zero_stops_a_function_and_none_frees_it():
    gate = Gate()
    gate.set_reserved("a", 0, 0.0)
    assert gate.admit("a", 0.0) == RESERVED
    gate.set_reserved("a", None, 0.0)
    assert isinstance(gate.admit("a", 0.0), Lane)
    with pytest.raises(ValueError):
        gate.set_reserved("a", -1, 0.0)


def test_what_runs_counts_against_a_new_cap_and_leaves_the_pool_that_it_entered():
    gate = Gate(account_limit=4)
    running = [gate.admit("a", 0.0) for _ in range(3)]
    assert kinds(running) == ["ok"] * 3
    gate.set_reserved("a", 2, 0.0)
    assert gate.admit("a", 0.0) == RESERVED
    assert gate.admit("b", 0.0) == ACCOUNT
    gate.release(running[0])
    gate.release(running[1])
    assert kinds([gate.admit("b", 0.0), gate.admit("b", 0.0)]) == ["ok", ACCOUNT]
    assert kinds([gate.admit("a", 0.0), gate.admit("a", 0.0)]) == ["ok", RESERVED]
    gate.release(running[2])
    assert gate.in_flight == {"a": 1, "b": 1} and gate.unreserved == 1


def test_a_reservation_taken_away_midway_is_held_until_its_work_is_done():
    gate = Gate(account_limit=4)
    gate.set_reserved("a", 3, 0.0)
    running = [gate.admit("a", 0.0) for _ in range(3)]
    gate.set_reserved("a", None, 0.0)
    assert kinds([gate.admit("b", 0.0), gate.admit("b", 0.0)]) == ["ok", ACCOUNT]
    gate.release(running[0])
    assert kinds([gate.admit("b", 0.0), gate.admit("b", 0.0)]) == ["ok", ACCOUNT]
    for lane in running[1:]:
        gate.release(lane)
    assert gate.unreserved_limit == 4 and gate.total == 2


def test_more_releases_than_admissions_are_a_mistake():
    gate = Gate()
    lane = gate.admit("a", 0.0)
    gate.release(lane)
    with pytest.raises(ValueError):
        gate.release(lane)


def test_provisioned_units_are_taken_out_of_the_account():
    gate = Gate(account_limit=5)
    gate.set_provisioned("a", "1", 2, 0.0)
    assert gate.unreserved_limit == 3
    assert kinds(gate.admit("b", 0.0) for _ in range(4)) == ["ok", "ok", "ok", ACCOUNT]
    ahead = [gate.admit_provisioned("a", "1", 0.0) for _ in range(3)]
    assert kinds(ahead) == ["ok", "ok", None] and gate.claimed == 5 and gate.total == 5
    assert gate.admit_provisioned("a", "2", 0.0) is None
    gate.release(ahead[0])
    assert isinstance(gate.admit_provisioned("a", "1", 0.0), Lane)


def test_provisioned_equal_to_reserved_leaves_nothing_on_demand():
    gate = Gate(account_limit=10)
    gate.set_reserved("a", 3, 0.0)
    gate.set_provisioned("a", "1", 2, 0.0)
    assert gate.unreserved_limit == 7
    assert kinds([gate.admit("a", 0.0), gate.admit("a", 0.0)]) == ["ok", RESERVED]
    gate.set_provisioned("a", "1", 3, 0.0)
    assert gate.admit("a", 0.0) == RESERVED
    assert isinstance(gate.admit_provisioned("a", "1", 0.0), Lane)


def test_a_decrease_in_use_is_held_until_its_work_is_done():
    gate = Gate(account_limit=4)
    gate.set_provisioned("a", "1", 3, 0.0)
    running = [gate.admit_provisioned("a", "1", 0.0) for _ in range(3)]
    gate.set_provisioned("a", "1", 0, 0.0)
    assert gate.admit_provisioned("a", "1", 0.0) is None
    assert kinds([gate.admit("b", 0.0), gate.admit("b", 0.0)]) == ["ok", ACCOUNT]
    for lane in running:
        gate.release(lane)
    assert gate.unreserved_limit == 4 and gate.function("a").provisioned == {}


def test_ten_requests_a_second_per_provisioned_unit():
    gate = Gate()
    gate.set_provisioned("a", "1", 2, 100.0)
    for _ in range(20):
        gate.release(gate.admit_provisioned("a", "1", 100.0))
    assert gate.admit_provisioned("a", "1", 100.0) is None
    assert isinstance(gate.admit_provisioned("a", "1", 100.0, synchronous=False), Lane)
    assert isinstance(gate.admit("a", 100.0), Lane)
    assert isinstance(gate.admit_provisioned("a", "1", 100.051), Lane)


def test_ten_requests_a_second_per_reserved_unit():
    gate = Gate()
    gate.set_reserved("a", 1, 100.0)
    for _ in range(10):
        gate.release(gate.admit("a", 100.0))
    refused = gate.admit("a", 100.0)
    assert refused == Throttled("ReservedFunctionInvocationRateLimitExceeded", 100.1)
    gate.release(gate.admit("a", 100.0, synchronous=False))
    assert isinstance(gate.admit("a", 100.11), Lane)


def test_the_account_has_a_request_rate_too():
    gate = Gate(account_limit=1)
    for _ in range(10):
        gate.release(gate.admit("a", 50.0))
    assert gate.admit("b", 50.0) == Throttled("FunctionInvocationRateLimitExceeded", 50.1)


def test_a_refused_request_takes_nothing():
    gate = Gate(account_limit=1)
    for _ in range(10):
        gate.release(gate.admit("a", 50.0))
    assert isinstance(gate.admit("a", 50.0), Throttled)
    assert gate.in_flight == {} and gate.total == 0
    assert isinstance(gate.admit("a", 51.0), Lane)


def test_a_thousand_environments_in_ten_seconds():
    gate = Gate()
    assert [gate.admit_start("a", 0.0) for _ in range(1_000)] == [None] * 1_000
    refused = gate.admit_start("a", 0.0)
    assert refused == Throttled("FunctionInvocationRateLimitExceeded", 0.01)
    assert gate.admit_start("b", 0.0) is None
    assert [gate.admit_start("a", 1.0) for _ in range(101)].count(None) == 100
    assert [gate.admit_start("a", 1_000.0) for _ in range(1_001)].count(None) == 1_000


def test_what_one_version_runs_counts_against_the_reservation_of_the_next():
    """An alias has moved: the old version's invocations still run when the new one is ready."""
    gate = Gate()
    gate.set_reserved("a", 3, 0.0)
    gate.set_provisioned("a", "1", 3, 0.0)
    lanes = [gate.admit_provisioned("a", "1", 0.0) for _ in range(3)]
    gate.set_provisioned("a", "2", 3, 0.0)
    gate.set_provisioned("a", "1", 0, 0.0)
    assert gate.admit_provisioned("a", "2", 0.0) is None and gate.admit("a", 0.0) == RESERVED
    gate.release(lanes[0])
    assert isinstance(gate.admit_provisioned("a", "2", 0.0), Lane)
    assert gate.admit_provisioned("a", "2", 0.0) is None


def test_a_hundred_stay_unreserved_while_an_alias_moves():
    """Both of its versions are provisioned then, with more than could have been set."""
    gate = Gate(account_limit=150)
    gate.set_reserved("b", 20, 0.0)
    for version in ("1", "2"):
        gate.set_provisioned("a", version, 30, 0.0)
    assert gate.unreserved_limit == 100
    ahead = [gate.admit_provisioned("a", "1", 0.0) for _ in range(30)]
    assert kinds(gate.admit("c", 0.0) for _ in range(101)) == ["ok"] * 100 + [ACCOUNT]
    assert kinds(gate.admit("b", 0.0) for _ in range(20)) == ["ok"] * 20
    assert gate.total == 150 and gate.admit_provisioned("a", "2", 0.0) is None
    gate.release(ahead[0])
    assert isinstance(gate.admit_provisioned("a", "2", 0.0), Lane)


def test_peaks_are_the_most_since_the_last_look():
    gate = Gate()
    lanes = [gate.admit("a", 0.0) for _ in range(3)]
    for lane in lanes:
        gate.release(lane)
    gate.set_provisioned("b", "1", 1, 0.0)
    gate.admit_provisioned("b", "1", 0.0)
    assert gate.peaks() == (3, 3)
    assert gate.peaks() == (1, 0)


actions = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "ahead", "release", "reserve", "provision"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(actions)
def test_limits_hold_after_any_sequence(steps):
    """Whatever is set in between: the account's limit holds, a cap lets nobody in above it, nothing is counted twice,
    and at the end every pool is whole."""
    gate = Gate(account_limit=6)
    running: list[Lane] = []
    for kind, name, number in steps:
        if kind == "release":
            if running:
                gate.release(running.pop(number % len(running)))
        elif kind == "reserve":
            gate.set_reserved(name, None if number == 5 else number, 0.0)
        elif kind == "provision":
            gate.set_provisioned(name, "1", number % 3, 0.0)
        else:
            before = gate.in_flight.get(name, 0)
            if kind == "admit":
                lane = gate.admit(name, 0.0, synchronous=False)
            else:
                lane = gate.admit_provisioned(name, "1", 0.0, synchronous=False)
            if isinstance(lane, Lane):
                running.append(lane)
                if name in gate.reserved:
                    assert before < gate.reserved[name]
        assert gate.total == len(running) == sum(gate.in_flight.values()) <= 6
    for lane in running:
        gate.release(lane)
    for name in "abc":
        gate.set_reserved(name, None, 0.0)
        gate.set_provisioned(name, "1", 0, 0.0)
    assert (gate.total, gate.unreserved, gate.claimed, gate.unreserved_limit) == (0, 0, 0, 6)
