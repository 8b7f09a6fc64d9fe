"""Networks in files that a study names: read, and fitted, before anything is trained.

Criterion and initializer `from_bundle` read one, and criterion `magnitude` a checkpoint;
`shuffled` may shuffle the masks of both.
"""

import copy

import torch
from torch import nn

from sculpt.config import Choice, Study
from sculpt.data import Spec
from sculpt.initializers import initialize
from sculpt.initializers.trained import check_not_repaired, read_trained
from sculpt.pruning.criteria.magnitude import read_saved_state
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA, FROM_BUNDLE
from sculpt.trial_setup import build_model, mask_rule


def networks_from_files(candidate: Study) -> dict[str, Choice]:
    """Return the initializer and the criterion of a candidate that read a network from a file."""
    pruning = candidate.pruning
    chosen = {"initializer": pruning.initializer, "criterion": pruning.criterion}
    return {key: choice for key, choice in chosen.items() if _file_of(choice)}


def check_networks_readable(study: Study, spec: Spec) -> None:
    """Refuse a study that names a network which cannot be read, or not by its base, by an
    InputError that names the file."""
    found = networks_from_files(study)
    named = list(found.values())
    for dimension in study.space.parameters.values():
        if isinstance(dimension, list):
            named += [value for value in dimension if isinstance(value, Choice)]
    for choice in named:
        if file := _file_of(choice):
            (read_trained if _shuffled(choice).name == FROM_BUNDLE else read_saved_state)(file)
    if "initializer" in found:
        with torch.device("meta"):
            model = build_model(study, spec)
        initialize(_with_memory(model), FROM_BUNDLE, seed=0, **found["initializer"].options)


def check_networks_fit(
    candidate: Study, model: nn.Module, input_shape: tuple[int, ...], kept: int
) -> None:
    """Refuse a candidate that a network from a file does not fit, by doing what its trial would do.

    Args:
        candidate: The study with sampled values in place.
        model: Its network on the meta device; left as it is.
        input_shape: Of one image.
        kept: Weights and biases that its budget leaves.

    Raises:
        InputError: The message says what does not fit.
    """
    pruning, found = candidate.pruning, networks_from_files(candidate)
    if not found:
        return
    check_not_repaired(pruning.initializer.name, pruning.repair)
    network = _with_memory(model)
    if "initializer" in found:
        initialize(network, FROM_BUNDLE, seed=0, **pruning.initializer.options)
    if "criterion" in found:
        criterion = _shuffled(pruning.criterion)
        task = PruningTask(network, kept, input_shape=input_shape, rule=mask_rule(pruning))
        CRITERIA.get(criterion.name)(network, task, **criterion.options)


def _shuffled(choice: Choice) -> Choice:
    """Return the criterion whose masks are shuffled; any other choice as it is."""
    if choice.name != "shuffled" or "of" not in choice.options:
        return choice
    return Choice(name=choice.options["of"], **choice.options.get("of_options") or {})


def _file_of(choice: Choice) -> str | None:
    """Return the file that a choice reads, if it does."""
    choice = _shuffled(choice)
    option = {FROM_BUNDLE: "bundle", "magnitude": "checkpoint"}.get(choice.name)
    return choice.options.get(option) if option else None


def _with_memory(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to_empty(device="cpu")
