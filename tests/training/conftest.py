"""Digits cut down to 200 images."""

from collections.abc import Iterator

import pytest
import torch

from sculpt.data import Splits, make_splits
from sculpt.data.digits import Digits


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """Starting threads costs more than networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def splits() -> Splits:
    """150 images to train on and 50 to validate on."""
    return make_splits(Digits().read(), train_images=200, validation_fraction=0.25)
