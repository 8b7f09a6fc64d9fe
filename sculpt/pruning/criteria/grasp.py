"""GraSP (Wang et al. 2020): keep the weights without which the gradient flow would fall most."""

from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.errors import InputError, check_choice
from sculpt.pruning.criteria.connection_sensitivity import (
    BatchNormMode,
    Precision,
    check_seen,
    gradients_of,
    images_of,
    make_loss,
    scoring_mode,
)
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA

GraspTargets = Literal["gt", "uniform"]
LOWEST = 1e-6
"""Score of the first weight to be pruned, as a fraction of the range of θ ⊙ Hg: small, not 0."""


@CRITERIA.register("grasp")
def grasp(
    model: nn.Module,
    task: PruningTask,
    *,
    targets: GraspTargets = "gt",
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 200.0,
    batch_norm: BatchNormMode = "identity",
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Score each weight by the decrease of the gradient's squared norm at its removal.

    To first order, setting θ_j to 0 changes ‖g‖² by −2 θ_j (Hg)_j, with g the gradient and H the
    Hessian of the mean loss (Eq. 5–8). So the highest θ ⊙ Hg are kept. The paper writes this as
    S = −θ ⊙ Hg and removes the highest. g is taken over all images before the product with H,
    which is exact, by differentiating twice, in a second pass over the same images.

    θ ⊙ Hg has both signs, and no score may: it is shifted, so that the lowest of the network
    scores a millionth of the range, and every rank and every difference stays.

    Args:
        model: Maps inputs to logits (N, classes); can be differentiated twice.
        task: Every image of its batches counts the same; each pass must show the same ones.
        targets: `gt`: cross-entropy to the labels. `uniform`: to the uniform distribution, without
            labels.
        temperature: Above 0. The logits are divided by it (the paper's code: 200).
        batch_norm, precision: As in `connection_sensitivity`.

    Returns:
        Scores, float64; exactly 0 for weights that are exactly 0, such as fresh biases, or that
        the loss does not depend on, and everywhere if all of θ ⊙ Hg are equal, which ranks nothing.

    Raises:
        InputError: there are no images, labels are missing, or an option is outside its range.
    """
    check_choice("targets", targets, get_args(GraspTargets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    check_choice("precision", precision, get_args(Precision))
    if not temperature > 0:
        raise InputError(
            f"temperature must be above 0, but got {temperature}; 1 leaves the logits as they are"
        )
    parameters = prunable_parameters(model)
    weights = list(parameters.values())
    with scoring_mode(model, batch_norm, task, twice=True):
        images = sum(images_of(task, inputs) for inputs, _ in task.batches())
        check_seen(images, "grasp")
        summed_loss = make_loss(model, task, targets, precision, temperature=temperature)

        def mean_loss(inputs: Any, labels: Tensor) -> Tensor:
            return summed_loss(inputs, labels) / images

        gradient = [torch.zeros_like(weight) for weight in weights]
        used = [False] * len(weights)
        for inputs, labels in task.batches():
            own = torch.autograd.grad(mean_loss(inputs, labels), weights, allow_unused=True)
            used = [before or slope is not None for before, slope in zip(used, own, strict=True)]
            found = [
                torch.zeros_like(weight) if slope is None else slope
                for weight, slope in zip(weights, own, strict=True)
            ]
            torch._foreach_add_(gradient, found)
        product = [torch.zeros_like(weight) for weight in weights]
        for inputs, labels in task.batches():
            slopes = gradients_of(mean_loss(inputs, labels), weights, create_graph=True)
            along = torch.stack(
                [(a * b).sum() for a, b in zip(slopes, gradient, strict=True)]
            ).sum()
            torch._foreach_add_(product, gradients_of(along, weights))
    values = {
        name: weight.detach().double() * hg.double()
        for (name, weight), hg in zip(parameters.items(), product, strict=True)
    }
    ranked = {
        name: (weight.detach() != 0) & reached
        for (name, weight), reached in zip(parameters.items(), used, strict=True)
    }
    return _shifted(values, ranked)


def _shifted(values: dict[str, Tensor], where: dict[str, Tensor]) -> dict[str, Tensor]:
    """Shift values to be positive where they are ranked; 0 elsewhere. NaN stays NaN."""
    ranked = torch.cat([tensor[where[name]] for name, tensor in values.items()])
    ranked = ranked[ranked.isfinite()]
    lowest, highest = (float(ranked.min()), float(ranked.max())) if ranked.numel() else (0.0, 0.0)
    if lowest == highest:
        return {name: tensor * 0 for name, tensor in values.items()}
    offset = LOWEST * (highest - lowest)
    return {
        name: ((tensor - lowest) + offset).where(where[name], 0) for name, tensor in values.items()
    }
