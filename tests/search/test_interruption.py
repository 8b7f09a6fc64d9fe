"""A signal cuts short what may take long, and leaves the books alone."""

import os
import signal

import pytest

from sculpt.search.interruption import Interruption


def interrupt(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_books_and_not_for_the_training(number):
    with Interruption() as interruption:
        interrupt(number)  # while the books are written: nothing happens
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            raise AssertionError("nothing long is begun any more")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_is_obeyed_anywhere(number):
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            interrupt(number)
        with pytest.raises(KeyboardInterrupt):
            interrupt(number)


def test_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
