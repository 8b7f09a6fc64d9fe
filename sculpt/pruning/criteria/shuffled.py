"""Another criterion's mask, shuffled within each layer: a control (Frankle et al. 2021, §5).

*Pruning Neural Networks at Initialization: Why Are We Missing the Mark?* If shuffling costs
nothing, a criterion has found layer densities, not the weights that matter.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo
from torch import Tensor, nn

from sculpt.diagnostics.layers import by_output, from_outputs, weighted_layers
from sculpt.errors import InputError
from sculpt.pruning.masks import WholeMask, prunable_parameters
from sculpt.pruning.patterns import pattern_of
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA, check_options, options_schema


def _another_criterion(name: str) -> str:
    others = [known for known in CRITERIA.names() if known != "shuffled"]
    if name not in others:
        raise ValueError(f"be one of {', '.join(others)}")
    return name


def _its_options(
    given: Mapping[str, Any] | None, found: ValidationInfo
) -> Mapping[str, Any] | None:
    """Check the options of the other criterion, which is found before them."""
    if "of" in found.data:
        try:
            options_schema(CRITERIA.get(found.data["of"])).model_validate(dict(given or {}))
        except ValidationError as error:
            faults = [
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors(include_url=False)
            ]
            raise ValueError(f"fit {found.data['of']} ({'; '.join(faults)})") from error
    return given


@CRITERIA.register("shuffled")
def shuffled(
    model: nn.Module,
    task: PruningTask,
    *,
    of: Annotated[str, AfterValidator(_another_criterion)] = "connection_sensitivity",
    of_options: Annotated[
        Mapping[str, Any] | None, AfterValidator(_its_options), Field(validate_default=True)
    ] = None,
) -> dict[str, Tensor]:
    """Permute the positions of another criterion's mask, uniformly within each parameter.

    Args:
        task: Its rule makes the mask that is shuffled, so that each layer keeps as many weights. Of
            a pattern N:M, the runs of M are shuffled, and what is within each; of whole kernels,
            kernels are.
        of: The other criterion's registered name.
        of_options: The other criterion's options.

    Returns:
        1 where the shuffled mask keeps a weight, else 0.

    Raises:
        UnknownNameError: no criterion has this name.
        InputError: the other criterion is this one, or has no such option.
    """
    if of == "shuffled":
        raise InputError(
            "of must be another criterion than 'shuffled' itself; shuffling twice is shuffling once"
        )
    criterion = CRITERIA.get(of)
    given = dict(of_options or {})
    check_options(of, criterion, given, "of_options")
    masks = task.select(criterion(model, task, **given))
    pattern, layers = pattern_of(task.rule.granularity), weighted_layers(model)
    scores = WholeMask()
    for name in prunable_parameters(model):
        mask = masks[name]
        if task.rule.granularity == "kernel" and name in layers:
            kernels = by_output(layers[name], mask)
            order = torch.randperm(kernels[..., 0].numel(), generator=task.generator, device="cpu")
            drawn = kernels.flatten(0, 1)[order.to(mask.device)].view(kernels.shape)
            scores[name] = from_outputs(layers[name], drawn).float()
            continue
        if pattern and name in layers and pattern.holds_for(layers[name]):
            scores[name] = pattern.shuffled(layers[name], mask, task.generator).float()
            continue
        order = torch.randperm(mask.numel(), generator=task.generator, device="cpu")
        flat = mask.flatten()[order.to(mask.device)]
        scores[name] = flat.view(mask.shape).to(torch.float32)
    return scores
