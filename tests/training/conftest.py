"""Digits cut down to 200 images, and networks small enough to train on them in milliseconds."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from sculpt.config import Training
from sculpt.data import Splits, make_splits
from sculpt.data.digits import Digits
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.pruning.masks import Masks, apply_masks, dense_masks, keep_highest


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


@pytest.fixture
def make_network() -> Callable[..., tuple[nn.Module, Masks]]:
    """A function that makes a network, and masks that keep a random share of its weights."""

    def make(density: float = 1.0, widening: float = 1) -> tuple[nn.Module, Masks]:
        model = resnet(1, 10, stem_width=3, blocks=1, widening=widening)
        initialize(model, "variance_scaling", seed=1)
        masks = dense_masks(model)
        if density < 1:
            generator = torch.Generator().manual_seed(2)
            scores = {
                name: torch.rand(mask.shape, generator=generator) for name, mask in masks.items()
            }
            total = sum(mask.numel() for mask in masks.values())
            masks = keep_highest(scores, round(density * total))
            apply_masks(model, masks)
        return model, masks

    return make


@pytest.fixture
def recipe() -> Callable[..., Training]:
    """A function that makes a recipe of two epochs of three steps, the last batch included."""

    def make(**changes: object) -> Training:
        settings = {
            "epochs": 2,
            "batch_size": 50,
            "learning_rate": 0.05,
            "schedule": "constant",
            "precision": "float32",
        }
        return Training.model_validate(settings | changes)

    return make


@pytest.fixture
def record_inputs() -> Callable[[nn.Module], list[Tensor]]:
    """A function that starts to record the batches that a network is trained on."""

    def start(model: nn.Module) -> list[Tensor]:
        seen: list[Tensor] = []

        def keep(module: nn.Module, arguments: tuple[Tensor]) -> None:
            if module.training:
                seen.append(arguments[0].clone())

        model.register_forward_pre_hook(keep)
        return seen

    return start
