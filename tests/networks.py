"""Toy networks with chosen weights, their masks, and everything of a network that can change."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import Masks, dense_masks


def normal(model: nn.Module, std: float = 0.5, seed: int = 0) -> nn.Module:
    """Draw every parameter of a network from a normal distribution; return the network."""
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, std, generator=stream)
    return model


def small_resnet(**options: Any) -> nn.Module:
    """Build a ResNet for grey 8×8 images, with weights drawn by `ldi`."""
    model = resnet(1, 10, **({"blocks": 1, "stem_width": 4} | options))
    initialize(model, "ldi", seed=0)
    return model


def conv_net(classes: int = 3) -> nn.Module:
    """Build a float64 network for 1×5×5 images, with running statistics that are not fresh."""
    norm = nn.BatchNorm2d(2)
    norm.running_mean.fill_(0.5)
    norm.running_var.fill_(4.0)
    head = nn.Linear(18, classes)
    return normal(nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Tanh(), nn.Flatten(), head).double())


class Undecided(nn.Module):
    """A network whose path depends on the images, which no tracing can follow."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, images: Tensor) -> Tensor:
        hidden = images.flatten(1)
        return self.layer(hidden) if hidden.sum() < 1e9 else hidden


def random_masks(model: nn.Module, density: float, seed: int = 0) -> Masks:
    """Keep about this share of every weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(mask.shape, generator=generator) < density
        for name, mask in dense_masks(model).items()
    }


def pruned_nonzeros(model: nn.Module, masks: Masks) -> int:
    """Count the pruned weights that are not zero."""
    return sum(int(model.get_parameter(n)[~m].count_nonzero()) for n, m in masks.items())


def sensitivity(model: nn.Module, losses: Iterable[Tensor]) -> dict[str, Tensor]:
    """Score every parameter by |w · Σ ∂L/∂w|, in the fewest lines: an oracle of SNIP."""
    for loss in losses:
        loss.backward()
    return {
        name: (p * (0 if p.grad is None else p.grad)).abs().detach()
        for name, p in model.named_parameters()
    }


def count(tensors: Mapping[str, Tensor]) -> int:
    """Count what masks keep, or scores that are not 0."""
    return sum(int(tensor.count_nonzero()) for tensor in tensors.values())


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the same names in the same order, and are the same."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def appearance(model: nn.Module) -> dict[str, Any]:
    """Return everything of a network that could be changed, as something that compares."""
    modules, parameters = list(model.modules()), list(model.parameters())
    return {
        "state": {
            key: (str(tensor.dtype), str(tensor.device), tensor.tolist())
            for key, tensor in model.state_dict().items()
        },
        "structure": str(model),
        "training": [module.training for module in modules],
        "norms": [m.track_running_stats for m in modules if hasattr(m, "running_var")],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules],
        "gradients": [parameter.grad for parameter in parameters],
        "trainable": [parameter.requires_grad for parameter in parameters],
    }
