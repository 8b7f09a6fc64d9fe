"""Networks small enough to train on digits in milliseconds, and recipes as short."""

import torch
from torch import Tensor, nn

from sculpt.config import Training
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import Masks, apply_masks, dense_masks, keep_highest


def make_network(density: float = 1.0, widening: float = 1) -> tuple[nn.Module, Masks]:
    """Make a network, and masks that keep a random share of its weights."""
    model = resnet(1, 10, stem_width=3, blocks=1, widening=widening)
    initialize(model, "variance_scaling", seed=1)
    masks = dense_masks(model)
    if density < 1:
        stream = torch.Generator().manual_seed(2)
        scores = {name: torch.rand(mask.shape, generator=stream) for name, mask in masks.items()}
        total = sum(mask.numel() for mask in masks.values())
        masks = keep_highest(scores, round(density * total))
        apply_masks(model, masks)
    return model, masks


def recipe(**changes: object) -> Training:
    """Make a recipe of two epochs of three steps, the last batch included."""
    settings = {"epochs": 2, "batch_size": 50, "learning_rate": 0.05}
    settings |= {"schedule": "constant", "precision": "float32"}
    return Training.model_validate(settings | changes)


def record_inputs(model: nn.Module) -> list[Tensor]:
    """Record from now on the batches that a network is trained on."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Tensor]) -> None:
        if module.training:
            seen.append(arguments[0].clone())

    model.register_forward_pre_hook(keep)
    return seen
