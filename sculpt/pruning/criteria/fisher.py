"""The Fisher diagonal: what removing a weight costs to second order (LeCun et al. 1989).

Gollini Navarrete et al. 2025, *What Scalable Second-Order Information Knows for Pruning at
Initialization* (arXiv 2502.11450).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.arguments import count_rows, take_rows
from sculpt.errors import InputError, check_choice
from sculpt.pruning.criteria.connection_sensitivity import (
    Precision,
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

StatisticsMode = Literal["identity", "warm_up"]


@CRITERIA.register("fisher")
def fisher(
    model: nn.Module,
    task: PruningTask,
    *,
    targets: GraspTargets = "gt",
    first_order: bool = False,
    group: Annotated[int, Field(ge=1, le=1_000_000)] = 1,
    batch_norm: StatisticsMode = "identity",
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Score each weight by the curvature of the loss that its own squared gradients show.

    ½ w² F with F = mean over the images of (∂L_i/∂w)², the diagonal of the empirical Fisher
    information: OBD's cost of removing the weight, with F in place of the Hessian's diagonal. With
    `first_order` it is |w · ∂L/∂w + ½ w² F|, Fisher-Taylor sensitivity (the paper's FTS).

    Each image takes a backward pass of its own: score on a sample (`pruning.images`).

    Args:
        model: As in `connection_sensitivity`.
        task: Every image of its batches counts the same. A loss of the task's takes the place of
            `targets`; then each of its batches counts as one image.
        targets: `gt`: cross-entropy to the labels. `uniform`: to the uniform distribution, without
            labels.
        first_order: Whether the change of the loss to first order is added.
        group: Images whose gradients are averaged before they are squared; 1 is the Fisher
            information. The authors' code squares the gradients of whole batches, which is faster
            by as much.
        batch_norm: As in `connection_sensitivity`. Batch norm in mode `batch` has no gradient of
            one image.
        precision: As in `connection_sensitivity`.

    Returns:
        Scores, float64; 0 for weights that are 0 or that the loss does not depend on.

    Raises:
        InputError: there are no images, labels are missing, or an option is outside its range.
    """
    check_choice("targets", targets, get_args(GraspTargets))
    check_choice("batch_norm", batch_norm, get_args(StatisticsMode))
    check_choice("precision", precision, get_args(Precision))
    if group < 1:
        raise InputError(f"group must be at least 1, but got {group}; 1 is a single image")
    parameters = prunable_parameters(model)
    weights = list(parameters.values())
    slopes, squares = (
        [torch.zeros_like(weight, dtype=torch.float64) for weight in weights] for _ in range(2)
    )
    images = 0
    with scoring_mode(model, batch_norm, task):
        summed_loss = make_loss(model, task, targets, precision)
        for inputs, labels in _in_groups(task, group):
            size = images_of(task, inputs)
            for slope, square, found in zip(
                slopes, squares, gradients_of(summed_loss(inputs, labels), weights), strict=True
            ):
                own = found.double()
                if first_order:
                    slope += own
                square.addcmul_(own, own, value=1 / size)  # size times the mean's square
            images += size
    check_seen(images, "fisher")
    return removal_costs(
        parameters,
        [square / images for square in squares],
        [slope / images for slope in slopes] if first_order else None,
    )


def removal_costs(
    parameters: Mapping[str, nn.Parameter], curvature: list[Tensor], slopes: list[Tensor] | None
) -> dict[str, Tensor]:
    """Score |½ w² h|, or |w g + ½ w² h| if slopes g are given, in float64.

    The loss changes by ½ w² h − w g at the removal of w; the sum is the authors' measure.
    """
    scores = {}
    for index, (name, parameter) in enumerate(parameters.items()):
        weight = parameter.detach().double()
        change = weight.square() * curvature[index].double() / 2
        if slopes is not None:
            change = change + weight * slopes[index].double()
        scores[name] = change.abs()
    return scores


def _in_groups(task: PruningTask, size: int) -> Iterator[tuple[Any, Tensor]]:
    """Cut the batches of a task into groups of images; a user's own loss takes them whole."""
    for inputs, labels in task.batches():
        if task.loss is not None:
            yield inputs, labels
            continue
        for start in range(0, count_rows(inputs), size):
            rows = slice(start, start + size)
            yield take_rows(inputs, rows), labels[rows]
