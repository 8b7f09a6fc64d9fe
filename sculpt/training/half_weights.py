"""Weights in bfloat16 for a step, copied all at once.

Autocast casts each weight, and each gradient back, by an operation of its own: 80 of them in a
ResNet20, which on a GPU cost as much as operations that compute.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

CAST = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose weights and biases autocast casts, and that do nothing else with them."""


class HalfWeights:
    """Copies in bfloat16 of the weights that autocast would cast, for a network in training.

    Weights of subclasses, of parametrised layers, and those that two layers share are left to
    autocast. Values and gradients are the same, bit for bit.

    Args:
        model: The network; its parameters stay as they are.
        precision: At another one than `bfloat16` nothing is copied.
    """

    def __init__(self, model: nn.Module, precision: str) -> None:
        kinds = CAST if precision == "bfloat16" else ()
        uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
        self._places: list[tuple[nn.Module, str]] = []
        self._whole: list[nn.Parameter] = []
        for module in model.modules():
            for name, parameter in module._parameters.items() if type(module) in kinds else ():
                if parameter is not None and uses[id(parameter)] == 1:
                    self._places.append((module, name))
                    self._whole.append(parameter)
        self._halves = [
            nn.Parameter(whole.detach().bfloat16(), requires_grad=whole.requires_grad)
            for whole in self._whole
        ]

    @torch.no_grad()
    def update(self) -> None:
        """Copy the present weights, and forget gradients of a step that was broken off."""
        for half in self._halves:
            half.grad = None
        if self._halves:
            torch._foreach_copy_([*self._halves], [*self._whole])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network compute with the copies, in which gradients then accumulate."""
        for (module, name), half in zip(self._places, self._halves, strict=True):
            module._parameters[name] = half
        try:
            yield
        finally:
            for (module, name), whole in zip(self._places, self._whole, strict=True):
                module._parameters[name] = whole

    @torch.no_grad()
    def hand_over_gradients(self) -> None:
        """Add the gradients of the copies to those of the weights, in float32."""
        fresh: tuple[list[Tensor], list[Tensor]] = [], []
        further: tuple[list[Tensor], list[Tensor]] = [], []
        for whole, half in zip(self._whole, self._halves, strict=True):
            if half.grad is None:
                continue
            if whole.grad is None:
                whole.grad = torch.empty_like(whole)
                pairs, gradient = fresh, half.grad
            else:  # of an earlier part of the batch
                pairs, gradient = further, half.grad.float()
            pairs[0].append(whole.grad)
            pairs[1].append(gradient)
            half.grad = None
        if fresh[0]:
            torch._foreach_copy_(*fresh)
        if further[0]:
            torch._foreach_add_(*further)
