"""A signal cuts short what may take long, and leaves the books alone."""

import os
import signal

import pytest

from sculpt.search.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_books_and_not_for_the_training(number):
    with Interruption() as interruption:
        os.kill(os.getpid(), number)  # writing: nothing happens
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            raise AssertionError("nothing long is begun any more")

    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            os.kill(os.getpid(), number)
            raise AssertionError("training went on")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)  # the second one is obeyed anywhere
            raise AssertionError("it was asked twice")


def test_the_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
