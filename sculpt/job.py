"""What one trial trains: its study, budget and seeds; and the networks that come of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sculpt.config import Params, Study
from sculpt.data import ImageSet, ImageSpec, Splits
from sculpt.models import build_network
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.masks import Masks, Scores, count_parameters, prunable_budget
from sculpt.pruning.task import PruningTask
from sculpt.pruning.trained import check_not_repaired
from sculpt.record import Role, SculptedRecord, SeedRecord
from sculpt.seeding import derive_seed


@dataclass(frozen=True)
class Job:
    """What one trial is to train."""

    label: int | str
    """What the trial is called where people read: a number, or `base`, `confirm 3`, ..."""
    study: Study
    """With the sampled parameters in place (`Study.with_parameters`)."""
    role: Role
    params: Params
    """Those that were sampled, by their keys in the space."""
    budget: int
    """Parameters to keep under the study's counting rule."""
    seeds: Sequence[int]
    """Each of the weights, the criterion's draws, the data order and the augmentation."""
    read_test: bool = False
    """Read the test images, once, when the training of a seed has ended."""
    confirms: int | str | None = None
    """Of the confirmation: which trial is trained again, ..."""
    arm: str | None = None
    """... and whether it is `sculpted` or `shuffled`."""

    @property
    def objectives(self) -> list[str]:
        """What its values are in Optuna's study."""
        return self.study.search.objectives if self.confirms is None else ["test_error"]

    def build(self, splits: Splits) -> nn.Module:
        """Build the network, untrained, on the device of the images."""
        model = build_model(self.study, splits.spec).to(splits.train.device)
        return model.to(memory_format=torch.channels_last)

    def pruning_task(self, model: nn.Module, scoring: ImageSet, seed: int) -> PruningTask:
        """Return what the criterion is given of a candidate, as initialised.

        It scores on the `scoring` images, or on a sample of them that `seed` draws.

        Raises:
            BudgetError: the network is too small for the budget.
            InputError: a trained network would be repaired.
        """
        pruning = self.study.pruning
        check_not_repaired(pruning.initializer.name, pruning.repair)
        kept = prunable_budget(model, self.budget, self.study.counting)
        images = scoring.sample(pruning.images, seed=seed)
        return PruningTask(
            model,
            kept,
            batches=partial(images.batches, pruning.batch_size),
            generator=torch.Generator().manual_seed(derive_seed(seed, "criterion")),
            input_shape=images.images.shape[1:],
            rule=MaskRule(
                pruning.scope, pruning.granularity, pruning.mac_exponent, pruning.effective
            ),
        )


@dataclass(frozen=True)
class Sculpted:
    """A network ready to train: what was removed, and what that did to its signals."""

    model: nn.Module
    masks: Masks
    scores: Scores
    """Of a candidate, by parameter name; empty for the base, and where it was read from a file."""
    record: SculptedRecord


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed, its masks, and everything that was measured of it."""

    model: nn.Module
    masks: Masks
    record: SeedRecord


def build_model(study: Study, spec: ImageSpec) -> nn.Module:
    """Build the study's network, untrained, on the current default device."""
    return build_network(
        study.model.name,
        channels=spec.channels,
        classes=spec.classes,
        pixels=spec.height * spec.width,
        **study.model.options,
    )


def resolve_budget(study: Study, spec: ImageSpec) -> int:
    """Return the study's budget as a number, for a network of the size of its own model.

    `base` is all of it, a sparsity a share of it.
    """
    return candidate_budget(study, study, spec)


def candidate_budget(study: Study, candidate: Study, spec: ImageSpec) -> int:
    """Return what a candidate keeps: `base` is the size of the study's base, a sparsity a share.

    A share is one of the candidate's own network. All candidates have one budget unless it is a
    share, or sampled.
    """
    budget = candidate.budget
    if isinstance(budget, int):
        return budget
    with torch.device("meta"):
        network = build_model(study if budget == "base" else candidate, spec)
    dense = count_parameters(network, study.counting)
    return dense if budget == "base" else round((1 - budget.sparsity) * dense)
