"""Optuna's experimental parts, used knowingly."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from optuna.exceptions import ExperimentalWarning


@contextmanager
def experimental_accepted() -> Iterator[None]:
    """Silence the notes that a part of Optuna is experimental; our tests watch those parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
