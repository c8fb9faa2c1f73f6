"""Admission: concurrency, reservations, rates; pure arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preheat.execution.contract import Throttled
from preheat.execution.gate import Gate

ACCOUNT = Throttled("ConcurrentInvocationLimitExceeded")
RESERVED = Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")


def test_the_account_limit_is_shared_by_all():
    gate = Gate(account_limit=3)
    assert [gate.admit(name, 0.0) for name in ("a", "b", "a")] == [None] * 3
    assert gate.admit("c", 0.0) == ACCOUNT
    gate.release("a")
    assert gate.admit("c", 0.0) is None
    assert gate.in_flight == {"a": 1, "b": 1, "c": 1}


def test_a_reservation_is_a_cap_and_a_guarantee():
    gate = Gate(account_limit=5)
    gate.set_reserved("a", 2, 0.0)
    assert gate.unreserved_limit == 3
    assert [gate.admit("b", 0.0) for _ in range(4)] == [None, None, None, ACCOUNT]
    assert [gate.admit("a", 0.0) for _ in range(3)] == [None, None, RESERVED]


def test_zero_stops_a_function_and_none_frees_it():
    gate = Gate()
    gate.set_reserved("a", 0, 0.0)
    assert gate.admit("a", 0.0) == RESERVED
    gate.set_reserved("a", None, 0.0)
    assert gate.admit("a", 0.0) is None
    with pytest.raises(ValueError):
        gate.set_reserved("a", -1, 0.0)


def test_what_runs_moves_with_the_reservation():
    gate = Gate(account_limit=4)
    assert [gate.admit("a", 0.0) for _ in range(3)] == [None] * 3
    gate.set_reserved("a", 2, 0.0)
    assert gate.admit("a", 0.0) == RESERVED
    assert [gate.admit("b", 0.0) for _ in range(3)] == [None, None, ACCOUNT]
    gate.set_reserved("a", None, 0.0)
    assert gate.admit("b", 0.0) == ACCOUNT
    for _ in range(2):
        gate.release("a")
    assert gate.admit("b", 0.0) is None


def test_ten_requests_a_second_per_reserved_unit():
    gate = Gate()
    gate.set_reserved("a", 1, 100.0)
    for _ in range(10):
        assert gate.admit("a", 100.0) is None
        gate.release("a")
    refused = gate.admit("a", 100.0)
    assert refused == Throttled("ReservedFunctionInvocationRateLimitExceeded", 100.1)
    assert gate.admit("a", 100.0, synchronous=False) is None
    gate.release("a")
    assert gate.admit("a", 100.11) is None


def test_the_account_has_a_request_rate_too():
    gate = Gate(account_limit=1)
    for _ in range(10):
        assert gate.admit("a", 50.0) is None
        gate.release("a")
    assert gate.admit("b", 50.0) == Throttled("FunctionInvocationRateLimitExceeded", 50.1)


def test_a_refused_request_takes_nothing():
    gate = Gate(account_limit=1)
    for _ in range(10):
        assert gate.admit("a", 50.0) is None
        gate.release("a")
    assert gate.admit("a", 50.0) is not None
    assert gate.in_flight == {}
    assert gate.admit("a", 51.0) is None


def test_a_thousand_environments_in_ten_seconds():
    gate = Gate()
    assert [gate.admit_start("a", 0.0) for _ in range(1_000)] == [None] * 1_000
    refused = gate.admit_start("a", 0.0)
    assert refused == Throttled("FunctionInvocationRateLimitExceeded", 0.01)
    assert gate.admit_start("b", 0.0) is None
    assert [gate.admit_start("a", 1.0) for _ in range(101)].count(None) == 100
    assert [gate.admit_start("a", 1_000.0) for _ in range(1_001)].count(None) == 1_000


actions = st.lists(
    st.tuples(
        st.sampled_from(["admit", "release", "reserve"]),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.none(), st.integers(0, 5)),
    ),
    max_size=80,
)


@given(actions)
def test_limits_hold_after_any_sequence(steps):
    gate = Gate(account_limit=6)
    for kind, name, limit in steps:
        if kind == "release":
            if name in gate.in_flight:
                gate.release(name)
            continue
        if kind == "reserve":
            gate.set_reserved(name, limit, 0.0)
            continue
        refused = gate.admit(name, 0.0, synchronous=False)
        if refused is None:
            others = sum(count for other, count in gate.in_flight.items() if other not in gate.reserved)
            assert others <= gate.unreserved_limit or name in gate.reserved
            assert gate.in_flight[name] <= gate.reserved.get(name, 6)
        assert gate._unreserved == sum(n for other, n in gate.in_flight.items() if other not in gate.reserved)
