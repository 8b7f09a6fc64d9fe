"""The setup of one trial: its study, budget and seeds; and its networks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial

import torch
from torch import Tensor, nn

from sculpt.config import Choice, Macs, Params, Pruning, Sparsity, Study
from sculpt.data import ImageSet, Spec, Splits
from sculpt.diagnostics.cost import Cost, measure_cost
from sculpt.diagnostics.topology import check_followable
from sculpt.errors import InputError
from sculpt.initializers import initialize
from sculpt.initializers.trained import check_not_repaired
from sculpt.models import build_for
from sculpt.pruning.batches import batches_of
from sculpt.pruning.mask_rule import MaskRule
from sculpt.pruning.masks import Masks, Scores, count_kept, count_parameters, prunable_budget
from sculpt.pruning.task import Criterion, PruningTask
from sculpt.record import Role, SculptedRecord, SeedRecord
from sculpt.registry import CRITERIA, IMPORT
from sculpt.seeding import derive_seed


@dataclass(frozen=True)
class TrialSetup:
    """Setup of one trial."""

    label: int | str
    """Name of the trial for people: a number, or `base`, `dense blocks 2`, `confirm 3`, ..."""
    study: Study
    """With the sampled parameters in place (`Study.with_parameters`)."""
    role: Role
    params: Params
    """Sampled parameters, by their keys in the space."""
    budget: int
    """Parameters to keep under the study's counting rule; at most, where MACs are limited."""
    seeds: Sequence[int]
    """One network each; decide weights, draws of the criterion, data order, augmentation."""
    read_test: bool = False
    """Whether the test images are read, once, after the training of a seed."""
    confirms: int | str | None = None
    """In a confirmation, the retrained trial, ..."""
    arm: str | None = None
    """... and whether it is `sculpted`, or which control of it; of an opponent its kind."""
    macs: int | None = None
    """Most multiply-accumulates on kept weights for one input; by default no limit."""

    @property
    def objectives(self) -> list[str]:
        """Objectives whose values Optuna is told."""
        return self.study.search.objectives if self.confirms is None else ["test_error"]

    @property
    def is_dense(self) -> bool:
        """Whether the network stays dense."""
        return self.role == "base" or self.arm == "dense"

    @property
    def is_pruned(self) -> bool:
        """Whether the network is pruned before it is trained, or trained again."""
        return not self.is_dense and self.study.training.moving.rule != "gradual_magnitude"

    @property
    def trains_first(self) -> bool:
        """Whether the dense network is trained before it is pruned."""
        return self.arm == "magnitude_after_training"

    @property
    def initializer(self) -> Choice:
        """Initializer of the weights that are scored or, where none are, trained."""
        pruning = self.study.pruning
        return pruning.initializer if self.is_pruned else pruning.redraw or pruning.initializer

    def moving_budget(self, model: nn.Module, masks: Masks) -> int | None:
        """Count the weights that masks keep in the end; None if they do not move in training."""
        if self.is_dense or self.study.training.moving.rule == "static":
            return None
        if self.macs is not None:  # layers keep their numbers of weights
            return count_kept(model, masks, "paper")
        return prunable_budget(model, self.budget, self.study.counting)

    def build(self, splits: Splits) -> nn.Module:
        """Build the untrained network, on the device of the images."""
        return channels_last(build_model(self.study, splits.spec).to(splits.train.device))

    def criterion(self, model: nn.Module) -> Criterion:
        """Return the study's criterion on a network, with its options."""
        chosen = self.study.pruning.criterion
        return partial(CRITERIA.get(chosen.name), model, **chosen.options)

    def redraw(self, model: nn.Module, seed: int) -> None:
        """Draw the weights of a pruned network anew, if the study says so."""
        if again := self.study.pruning.redraw:
            initialize(model, again.name, seed=derive_seed(seed, "redraw"), **again.options)

    def pruning_task(self, model: nn.Module, scoring: ImageSet, seed: int) -> PruningTask:
        """Make the task of the criterion for a network, as initialised.

        It scores on the `scoring` images, or on a sample of them drawn by `seed`.

        Raises:
            BudgetError: the network is too small for the budget.
            InputError: trained weights would be repaired.
        """
        pruning = self.study.pruning
        check_not_repaired(pruning.initializer.name, pruning.repair)
        kept = prunable_budget(model, self.budget, self.study.counting)
        images = scoring.sample(pruning.images, seed=seed)

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for rows in batches_of(len(images), pruning.batch_size):
                yield images.inputs(rows), images.labels[rows]

        return PruningTask(
            model,
            kept,
            batches=batches,
            generator=torch.Generator().manual_seed(derive_seed(seed, "criterion")),
            input_shape=images.images.shape[1:],
            rule=mask_rule(pruning),
            target_losses=scoring.task.scoring_loss(scoring.labels),
            macs=self.macs,
        )


@dataclass(frozen=True)
class Sculpted:
    """A pruned network ready to train."""

    model: nn.Module
    masks: Masks
    scores: Scores
    """By parameter name; empty for a dense network, and one read from a file."""
    record: SculptedRecord


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed, its masks and its record."""

    model: nn.Module
    masks: Masks
    record: SeedRecord


def mask_rule(pruning: Pruning) -> MaskRule:
    """Make the rule by which the scores of a study become masks."""
    return MaskRule(**{field.name: getattr(pruning, field.name) for field in fields(MaskRule)})


def channels_last(model: nn.Module) -> nn.Module:
    """Lay the weights of 2-D convolutions out as is fastest; other weights have no such layout."""
    if not any(parameter.dim() == 5 for parameter in model.parameters()):
        return model.to(memory_format=torch.channels_last)
    return model


def build_model(study: Study, spec: Spec) -> nn.Module:
    """Build the study's untrained network, on the current default device."""
    return build_for(study.model.name, spec.shape, spec.outputs, study.model.options)


def check_classes(cost: Cost, spec: Spec, family: str) -> None:
    """Refuse a network that does not return one logit for each class, or number of a target.

    Raises:
        InputError: its output has another shape.
    """
    if not cost.bare:
        raise InputError(
            "a network of a study must return one tensor, but returned it within something else "
            f"({family}); wrap it in a module that returns its logits alone"
        )
    if cost.output_shape != (spec.outputs,):
        asked = f"one logit for each of the data's {spec.outputs} classes"
        if spec.targets == "numbers":
            asked = f"one number for each of a target's {spec.outputs}, of shape (N, K),"
        raise InputError(
            f"a network must return {asked}, but "
            f"{family} returns {(1, *cost.output_shape)} for one image; let the family use its "
            "parameter `classes`"
        )


def resolve_budget(study: Study, spec: Spec) -> int:
    """Convert the study's budget to a number, for a network of the size of its own model.

    `base` is all of it, a sparsity a share of it.

    Raises:
        InputError: the study's own model does not fit its images and classes, or no paths can be
            followed through it.
    """
    with torch.device("meta"):
        network = build_model(study, spec)
    cost = measure_cost(network, spec.shape)
    check_classes(cost, spec, study.model.name)
    if study.model.name == IMPORT:  # a trial measures its paths
        check_followable(network, spec.shape)
    return candidate_budget(study, study, spec)


def candidate_budget(study: Study, candidate: Study, spec: Spec) -> int:
    """Convert a candidate's budget to a number of parameters.

    `base` is the size of the study's base, a sparsity a share of the candidate's own network, MACs
    alone leave all of it. All candidates have one budget unless it is one of these, or sampled.
    """
    given = candidate.budget
    budget = given.parameters if isinstance(given, Macs) else given
    if isinstance(budget, int):
        return budget
    with torch.device("meta"):
        network = build_model(study if budget == "base" else candidate, spec)
    dense = count_parameters(network, study.counting)
    return round((1 - budget.sparsity) * dense) if isinstance(budget, Sparsity) else dense


def candidate_macs(study: Study, candidate: Study, spec: Spec) -> int | None:
    """Convert a candidate's budget to a number of multiply-accumulates; None if it limits none."""
    budget = candidate.budget
    if not isinstance(budget, Macs):
        return None
    if budget.macs != "base":
        return budget.macs
    return _dense_macs(study.model.model_dump_json(), spec)


@cache
def _dense_macs(model: str, spec: Spec) -> int:
    """Count the MACs of a dense network; cached, because every candidate asks for the base's."""
    choice = Choice.model_validate_json(model)
    with torch.device("meta"):
        network = build_for(choice.name, spec.shape, spec.outputs, choice.options)
        return measure_cost(network, spec.shape).dense_macs
