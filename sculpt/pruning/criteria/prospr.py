"""Prospect pruning (Alizadeh et al. 2022): the weights that matter after some steps of training.

*Prospect Pruning: Finding Trainable Weights at Initialization using Meta-Gradients*, ICLR 2022.
"""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from sculpt.errors import InputError, check_choice
from sculpt.pruning.criteria.connection_sensitivity import (
    BatchNormMode,
    SummedLoss,
    check_seen,
    gradients_of,
    images_of,
    make_loss,
    scoring_mode,
)
from sculpt.pruning.criteria.grasp import GraspTargets
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("prospr")
def prospr(
    model: nn.Module,
    task: PruningTask,
    *,
    targets: GraspTargets = "gt",
    steps: Annotated[int, Field(ge=1, le=1000)] = 3,
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.1,
    meta_gradient: bool = True,
    batch_norm: BatchNormMode = "batch",
) -> dict[str, Tensor]:
    """Score each weight by what its mask does to the loss after some steps of training.

    |∂L(θ_M)/∂c| at c = 1 with θ_0 = c ⊙ w and θ_{t+1} = θ_t − α ∂L_t(θ_t)/∂θ_t (§3). Each of the M
    steps sees the next batch, and the last loss the one after these; after the last batch comes the
    first again. All that trains takes the steps, norms too; momentum, which the authors also use,
    is left out.

    Args:
        model: Maps inputs to logits (N, classes); can be differentiated twice.
        task: Of its batches, the first M + 1 are looked at.
        targets: As in `fisher`.
        steps: M, at least 1. Memory grows with it, as the graph of all steps is held.
        learning_rate: α.
        meta_gradient: Whether it is differentiated through the gradients of the steps. Without, the
            steps only move the weights at which the gradient is taken, in the memory of one step
            (the paper's first-order approximation).
        batch_norm: As in `connection_sensitivity`. Here too `batch` is as in the authors' code.

    Returns:
        Scores; 0 for weights that are 0 or that the loss does not depend on.

    Raises:
        InputError: there are no images, labels are missing, or an option is outside its range.
    """
    check_choice("targets", targets, get_args(GraspTargets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    if steps < 1 or not learning_rate > 0:
        raise InputError(
            "steps must be at least 1 and learning_rate above 0, but got "
            f"steps {steps} and learning_rate {learning_rate}; connection_sensitivity takes none"
        )
    prunable = prunable_parameters(model)
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in prunable.items()}
    weights = {
        name: parameter.detach() * masks[name]
        if name in masks
        else parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    with scoring_mode(model, batch_norm, task, twice=True):
        rollout = _Rollout(model, task, make_loss(model, task, targets))
        batches = _endless(task)
        for _ in range(steps):
            slopes = gradients_of(
                rollout.mean_loss(weights, *next(batches)),
                list(weights.values()),
                create_graph=meta_gradient,
                retain_graph=True,
            )
            weights = {
                name: weight - learning_rate * slope
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            }
        found = gradients_of(rollout.mean_loss(weights, *next(batches)), list(masks.values()))
    return {name: gradient.abs() for name, gradient in zip(masks, found, strict=True)}


class _Rollout(nn.Module):
    """The loss of a network as a module, so that it can be called with other weights."""

    def __init__(self, network: nn.Module, task: PruningTask, loss: SummedLoss):
        super().__init__()
        self.network, self.task, self.loss = network, task, loss

    def forward(self, inputs: Any, labels: Tensor) -> Tensor:
        return self.loss(inputs, labels) / images_of(self.task, inputs)

    def mean_loss(self, weights: dict[str, Tensor], inputs: Any, labels: Tensor) -> Tensor:
        here = {f"network.{name}": weight for name, weight in weights.items()}
        found: Tensor = functional_call(self, here, (inputs, labels))
        return found


def _endless(task: PruningTask) -> Iterator[tuple[Any, Tensor]]:
    """Pass over the batches again and again."""
    while True:
        empty = True
        for batch in task.batches():
            empty = False
            yield batch
        check_seen(not empty, "prospr")
