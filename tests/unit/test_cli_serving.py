"""The short way to a server takes what the command line library would take, and leaves the rest to it."""

from inspect import signature
from pathlib import Path
from typing import get_args

import pytest

from preheat.cli.serve import serve
from preheat.cli.serving import RANGES, plain_options, start


def test_both_ways_know_the_same_options():
    long, short = signature(serve).parameters, signature(start).parameters
    assert set(long) == set(short)
    for name, parameter in long.items():
        kind, option = get_args(parameter.annotation)
        assert parameter.default == short[name].default, name
        assert kind == short[name].annotation, name
        assert RANGES.get(name) == ((option.min, option.max) if int in (kind, *get_args(kind)) else None), name


def test_plain_options_are_read():
    words = "serve --port 5000 --state=a/b --durability power --min-free-memory 0 --interpreters x --interpreters=y"
    assert plain_options(words.split()) == {
        "port": 5_000, "state": Path("a/b"), "durability": "power", "min_free_memory": 0,
        "interpreters": [Path("x"), Path("y")],
    }  # fmt: skip
    assert plain_options(["serve"]) == {}
    assert plain_options(["serve", "--port", "1", "--port", "2"]) == {"port": 2}


@pytest.mark.parametrize(
    "words",
    [
        "", "up", "--help", "serve --help", "serve 5000", "serve --port", "serve --port 0", "serve --port 65536",
        "serve --port ٥", "serve --port x", "serve --port=", "serve --concurrency 100", "serve --colour red",
        "serve --min_free_memory 5", "serve --iam --port 5", "serve -p 5", "serve port 5", "serve --state -- x",
    ],
)  # fmt: skip
def test_everything_else_is_left_to_the_library(words):
    assert plain_options(words.split()) is None
