"""Studies that start from trained networks: is the file there, and does it fit?

Found out before anything is trained, by doing what a trial would do with it.
"""

import copy

import torch
from torch import nn

from sculpt.config import Choice, Study
from sculpt.data import ImageSpec
from sculpt.job import build_model
from sculpt.pruning.initializers import initialize
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.task import PruningTask
from sculpt.pruning.trained import FROM_BUNDLE, check_not_repaired, read_trained
from sculpt.registry import CRITERIA


def trained_networks(candidate: Study) -> dict[str, Choice]:
    """Return the initializer and the criterion of a candidate that read a trained network."""
    pruning = candidate.pruning
    chosen = {"initializer": pruning.initializer, "criterion": pruning.criterion}
    return {key: choice for key, choice in chosen.items() if choice.name == FROM_BUNDLE}


def check_start(study: Study, spec: ImageSpec) -> None:
    """Refuse a study that names a trained network which cannot be read, or not by its base.

    Args:
        study: Whose own initializer the base has.
        spec: Of its images.

    Raises:
        InputError: naming the file.
    """
    found = trained_networks(study)
    named = list(found.values())
    for dimension in study.space.parameters.values():
        if isinstance(dimension, list):
            named += [value for value in dimension if isinstance(value, Choice)]
    for choice in named:
        if choice.name == FROM_BUNDLE:
            read_trained(choice.options["bundle"])
    if "initializer" in found:
        with torch.device("meta"):
            model = build_model(study, spec)
        initialize(_with_memory(model), FROM_BUNDLE, seed=0, **found["initializer"].options)


def check_candidate_fits(
    candidate: Study, model: nn.Module, input_shape: tuple[int, int, int], kept: int
) -> None:
    """Refuse a candidate that a trained network does not fit.

    Args:
        candidate: The study with sampled values in place.
        model: Its network, on the meta device; left as it is.
        input_shape: Of an image, without its batch dimension.
        kept: Weights and biases that its budget leaves.

    Raises:
        InputError: saying what does not fit.
    """
    pruning, found = candidate.pruning, trained_networks(candidate)
    if not found:
        return
    check_not_repaired(pruning.initializer.name, pruning.repair)
    network = _with_memory(model)
    if "initializer" in found:
        initialize(network, FROM_BUNDLE, seed=0, **pruning.initializer.options)
    if "criterion" in found:
        rule = MaskRule(pruning.scope, pruning.granularity, pruning.mac_exponent, pruning.effective)
        task = PruningTask(network, kept, input_shape=input_shape, rule=rule)
        CRITERIA.get(FROM_BUNDLE)(network, task, **pruning.criterion.options)


def _with_memory(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to_empty(device="cpu")
