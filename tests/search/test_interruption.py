"""A signal cuts short what may take long, and leaves the books alone."""

import os
import signal
import sys
import time

import pytest

from sculpt.search.workers.interruption import Interruption


def interrupt(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_books_and_not_for_the_training(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interrupt(number)  # while the books are written: nothing happens
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            raise AssertionError("nothing long is begun any more")
    assert signal.getsignal(number) is before, "handlers must be put back"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("apart", [True, False])
def test_the_second_signal_is_obeyed_anywhere_unless_both_are_one(number, apart, monkeypatch):
    """timeout(1) sends two at once: the second must not disturb what the first one began."""
    together = 0.0 if apart else 1e9
    monkeypatch.setattr("sculpt.search.workers.interruption.TOGETHER_SECONDS", together)
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            interrupt(number)
        time.sleep(0.01)
        if apart:
            with pytest.raises(KeyboardInterrupt):
                interrupt(number)
        else:
            interrupt(number)  # while the books are written: nothing happens
            with pytest.raises(KeyboardInterrupt):
                interruption.check()


def test_what_holds_a_signal_back_inside_of_what_is_cut_short():
    done = []

    def train(interruption):
        with interruption.at_once():
            with interruption.held_back():
                interrupt(signal.SIGINT)
                done.append("the books")
            done.append("more training")

    with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
        train(interruption)
    assert done == ["the books"]


class Swallows:
    """Python prints what a destructor raises, and goes on."""

    def __del__(self):
        interrupt(signal.SIGINT)


def test_an_interrupt_that_python_swallowed_is_not_printed(capfd):
    before = sys.unraisablehook

    def train(interruption):
        with interruption.at_once():
            Swallows()
            interruption.check()  # at the end of the epoch

    with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
        train(interruption)
    assert capfd.readouterr().err == ""
    assert sys.unraisablehook is before


def test_what_else_was_swallowed_is(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with Interruption():
        broken = type("Broken", (), {"__del__": lambda _: 1 / 0})()
        del broken
    assert [what.exc_type for what in told] == [ZeroDivisionError]
