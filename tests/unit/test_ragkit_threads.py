"""Calls beside one another in threads that are kept."""

import os
import sys
import threading
from contextvars import ContextVar
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.threads import Threads

NAME: ContextVar[str] = ContextVar("name", default="")


def test_a_thread_is_kept_from_call_to_call_and_has_the_callers_context():
    threads = Threads(4)
    NAME.set("first")
    one = threads.start(lambda: (threading.get_ident(), NAME.get())).result()
    NAME.set("second")
    other = threads.start(lambda: (threading.get_ident(), NAME.get())).result()
    assert one[0] == other[0] != threading.get_ident()
    assert (one[1], other[1]) == ("first", "second")


def test_the_first_call_of_several_is_the_callers_own_and_all_run_at_once():
    threads, here, meeting = Threads(4), threading.get_ident(), threading.Barrier(3, timeout=20)

    def call(given):
        meeting.wait()
        return given, threading.get_ident() == here

    assert threads.map(call, [1, 2, 3]) == [(1, True), (2, False), (3, False)]
    assert threads.map(call, []) == []


def test_an_error_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        Threads(2).start(lambda: 1 / 0).result()
    with pytest.raises(KeyError):
        Threads(2).map({1: 1}.__getitem__, [1, 2])


def test_a_forked_process_has_threads_of_its_own():
    """As an environment that is restored from a snapshot: none of the threads before it goes on."""
    threads = Threads(2)
    threads.start(int).result()
    child = os.fork()
    if child == 0:
        os._exit(0 if threads.start(lambda: 7).result(20) == 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
