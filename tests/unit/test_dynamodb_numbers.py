"""Numbers: canonical text, order, arithmetic."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preheat.kernel.errors import AwsError
from preheat.services.dynamodb import numbers

DECIMALS = st.builds(
    lambda digits, exponent, sign: Decimal((sign, tuple(map(int, str(digits))), exponent)),
    st.integers(0, 10**38 - 1),
    st.integers(-130, 87),
    st.integers(0, 1),
)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("1", "1"),
        ("-0", "0"),
        ("0.0", "0"),
        ("007", "7"),
        ("+7", "7"),
        ("1e2", "100"),
        ("1.50", "1.5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("-0.00012", "-0.00012"),
        ("1E-130", "0." + "0" * 129 + "1"),
        ("9.9999999999999999999999999999999999999E+125", "9" * 38 + "0" * 88),
    ],
)
def test_canonical(given_text, expected):
    assert numbers.canonical(given_text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The parameter cannot be converted to a numeric value"),
        ("abc", "The parameter cannot be converted to a numeric value: abc"),
        ("NaN", "The parameter cannot be converted to a numeric value: NaN"),
        ("1 ", "The parameter cannot be converted to a numeric value: 1 "),
        ("1" * 39, "Attempting to store more than 38 significant digits in a Number"),
        ("1e126", "Number overflow. Attempting to store a number with magnitude larger than supported range"),
        ("-1e126", "Number overflow. Attempting to store a number with magnitude larger than supported range"),
        ("1e-131", "Number underflow. Attempting to store a number with magnitude smaller than supported range"),
    ],
)
def test_refused(text, message):
    with pytest.raises(AwsError) as caught:
        numbers.canonical(text)
    assert caught.value.message == message


@given(DECIMALS, DECIMALS)
def test_order_key_orders_as_numbers_do(left, right):
    first, second = numbers.canonical_decimal(left), numbers.canonical_decimal(right)
    keys = numbers.order_key(first), numbers.order_key(second)
    assert (keys[0] < keys[1]) == (Decimal(first) < Decimal(second))
    assert (keys[0] == keys[1]) == (Decimal(first) == Decimal(second))


@given(DECIMALS)
def test_canonical_is_exact_and_stable(value):
    text = numbers.canonical(str(value))
    assert Decimal(text) == value
    assert numbers.canonical(text) == text


def test_addition_is_exact():
    assert numbers.add("0.1", "0.2") == "0.3"
    assert numbers.add("5", "7", -1) == "-2"
    assert numbers.add("99999999999999999999", "1") == "100000000000000000000"
    with pytest.raises(AwsError):
        numbers.add("1" + "0" * 50, "1")
