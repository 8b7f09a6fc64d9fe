"""The Hessian's diagonal by Hutchinson's estimator: what removing a weight costs to second order.

Gollini Navarrete et al. 2025, *What Scalable Second-Order Information Knows for Pruning at
Initialization* (arXiv 2502.11450); the estimator is that of Bekas et al. 2007.
"""

from typing import Annotated, get_args

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
from sculpt.pruning.criteria.fisher import removal_costs
from sculpt.pruning.criteria.grasp import GraspTargets
from sculpt.pruning.masks import prunable_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("hutchinson")
def hutchinson(
    model: nn.Module,
    task: PruningTask,
    *,
    targets: GraspTargets = "gt",
    first_order: bool = False,
    probes: Annotated[int, Field(ge=1, le=10_000)] = 10,
    temperature: Annotated[float, Field(gt=0, le=1e6)] = 200.0,
    batch_norm: BatchNormMode = "identity",
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Score each weight by the curvature of the mean loss along it.

    |½ w² h| with h = mean over probes z of z ⊙ Hz, whose expectation is the diagonal of the Hessian
    H where the entries of z are −1 or 1 with equal chance. Hz is exact, by differentiating twice;
    probes are drawn anew for each batch. With `first_order` it is |w · ∂L/∂w + ½ w² h|,
    Hutchinson-Taylor sensitivity (the paper's HTS).

    Without the first order, the authors keep the sign and so remove weights of negative curvature
    first; here they count by their size, as no score may be negative.

    Args:
        model: Maps inputs to logits (N, classes); can be differentiated twice.
        task: Every image of its batches counts the same. Its generator draws the probes.
        targets: As in `fisher`.
        first_order: Whether the change of the loss to first order is added.
        probes: At least 1, for each batch; each takes a backward pass through the gradient. The
            standard error of h falls with its root.
        temperature: Above 0. The logits are divided by it (the authors' code: 200).
        batch_norm, precision: As in `connection_sensitivity`.

    Returns:
        Scores, float64; 0 for weights that are 0 or that the loss does not depend on.

    Raises:
        InputError: there are no images, labels are missing, or an option is outside its range.
    """
    check_choice("targets", targets, get_args(GraspTargets))
    check_choice("batch_norm", batch_norm, get_args(BatchNormMode))
    check_choice("precision", precision, get_args(Precision))
    if probes < 1 or not temperature > 0:
        raise InputError(
            "probes must be at least 1 and temperature above 0, but got "
            f"probes {probes} and temperature {temperature}; 1 leaves the logits as they are"
        )
    parameters = prunable_parameters(model)
    weights = list(parameters.values())
    slopes = [torch.zeros_like(weight) for weight in weights]
    diagonal = [torch.zeros_like(weight) for weight in weights]
    images = 0
    with scoring_mode(model, batch_norm, task, twice=True):
        summed_loss = make_loss(model, task, targets, precision, temperature=temperature)
        for inputs, labels in task.batches():
            found = gradients_of(summed_loss(inputs, labels), weights, create_graph=True)
            torch._foreach_add_(slopes, [slope.detach() for slope in found])
            for probe in range(1, probes + 1):
                signs = [_signs(weight, task.generator) for weight in weights]
                along = torch.stack([(g * z).sum() for g, z in zip(found, signs, strict=True)])
                if not along.requires_grad:  # the loss is linear
                    break
                products = gradients_of(along.sum(), weights, retain_graph=probe < probes)
                torch._foreach_addcmul_(diagonal, signs, list(products), 1 / probes)
            images += images_of(task, inputs)
    check_seen(images, "hutchinson")
    return removal_costs(
        parameters,
        [curvature / images for curvature in diagonal],
        [slope / images for slope in slopes] if first_order else None,
    )


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Draw −1 or 1 for each entry, on the CPU."""
    draws = torch.randint(0, 2, weight.shape, generator=generator, device="cpu")
    return (2 * draws - 1).to(weight)
