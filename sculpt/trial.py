"""One trial, as the method reads: build, initialise, score, mask, repair, train, measure.

Lee et al., *A Signal Propagation Perspective for Pruning Neural Networks at Initialization*,
ICLR 2020. Signal propagation is read after initialisation, after pruning and after repair.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sculpt.config import Sparsity, Study
from sculpt.data import ImageSet, ImageSpec, Splits
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.orthogonality import layer_orthogonality
from sculpt.models import build_network
from sculpt.pruning.initializers import initialize
from sculpt.pruning.isometry import LayerRepair, Method, repair_isometry
from sculpt.pruning.masks import (
    Masks,
    Scores,
    apply_masks,
    collapsed_layers,
    count_kept,
    count_parameters,
    dense_masks,
    prunable_budget,
)
from sculpt.pruning.selection import Selection
from sculpt.pruning.task import PruningTask
from sculpt.record import Clock, Role, describe_layers, lowest_test_error, read_signal
from sculpt.registry import CRITERIA
from sculpt.seeding import derive_seed
from sculpt.training.loop import Epoch, train


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed, its masks, and everything that was measured of it."""

    model: nn.Module
    masks: Masks
    record: dict[str, Any]


@dataclass(frozen=True)
class Sculpted:
    """A network ready to train: what was removed, and what that did to its signals."""

    model: nn.Module
    masks: Masks
    scores: Scores
    """Of a candidate, by parameter name; empty for the base."""
    record: dict[str, Any]
    """Sizes, costs, signal propagation and layers."""


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
    if isinstance(study.budget, int):
        return study.budget
    with torch.device("meta"):
        dense = count_parameters(build_model(study, spec), study.counting)
    return dense if study.budget == "base" else round((1 - study.budget.sparsity) * dense)


def candidate_budget(study: Study, candidate: Study, spec: ImageSpec) -> int:
    """Return what a candidate keeps: the same for all, unless it is a share of its own size."""
    relative = isinstance(candidate.budget, Sparsity)
    return resolve_budget(candidate if relative else study, spec)


def run_seed(
    study: Study,
    splits: Splits,
    *,
    role: Role,
    budget: int,
    seed: int,
    scoring: ImageSet | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Outcome:
    """Prune and train one network, with one seed.

    Args:
        study:
            With the sampled parameters in place (`Study.with_parameters`).
        splits:
            On the device to train on.
        role:
            A `base` stays dense; a `candidate` is pruned and, if asked for, repaired.
        budget:
            Parameters to keep under the study's counting rule.
        seed:
            Of the weights, the criterion's draws, the data order and the augmentation.
        scoring:
            Images to score on; by default those to train on.
        on_epoch:
            Called after each training epoch.

    Raises:
        BudgetError: the network is too small for the budget.
        DryRankingError: the criterion ranks too few weights.
        NumericsError: a score or the training loss is not finite.
    """
    clock = Clock(splits.train.device)
    sculpted = sculpt_network(
        study, splits, role=role, budget=budget, seed=seed, scoring=scoring, clock=clock
    )
    model, masks = sculpted.model, sculpted.masks
    with clock("train"):
        history = train(model, masks, splits, study.training, seed=seed, on_epoch=on_epoch)
    record = sculpted.record | {
        "val_error": history[-1].val_error,
        "val_loss": history[-1].val_loss,
        "test_error": lowest_test_error(history),
        "train_loss": history[-1].train_loss,
        "history": [asdict(epoch) for epoch in history],
        "seconds": clock.seconds,
    }
    return Outcome(model, masks, record)


def sculpt_network(
    study: Study,
    splits: Splits,
    *,
    role: Role,
    budget: int,
    seed: int,
    clock: Clock,
    scoring: ImageSet | None = None,
) -> Sculpted:
    """Make a network sparse: build, initialise, score, mask, repair; see `run_seed`."""
    spec, device, pruning = splits.spec, splits.train.device, study.pruning
    input_shape = (spec.channels, spec.height, spec.width)
    # Any sample will do, and every network of a study should be looked at with the same one.
    looked_at = study.diagnostics.jacobian_images
    probe = splits.train.sample(None if looked_at == "all" else looked_at, seed=0).inputs()
    signal = {}

    with clock("build"):
        model = build_model(study, spec).to(device).to(memory_format=torch.channels_last)
        masks = dense_masks(model)
        cost = measure_cost(model, input_shape)

    with clock("initialise"):
        initialize(model, pruning.initializer.name, seed=seed, **pruning.initializer.options)
    with clock("diagnose"):
        signal["initial"] = read_signal(model, masks, input_shape, probe)

    scores: Scores = {}
    repairs: dict[str, LayerRepair] = {}
    orthogonality = layer_orthogonality(model)
    unspent = 0
    if role == "candidate":
        kept = prunable_budget(model, budget, study.counting)
        scored = (scoring or splits.train).sample(pruning.images, seed=seed)
        task = PruningTask(
            model,
            kept,
            batches=partial(scored.batches, pruning.batch_size),
            generator=torch.Generator().manual_seed(derive_seed(seed, "criterion")),
            input_shape=input_shape,
            selection=Selection(
                pruning.scope, pruning.granularity, pruning.mac_exponent, pruning.effective
            ),
        )
        with clock("score"):
            scores = CRITERIA.get(pruning.criterion.name)(model, task, **pruning.criterion.options)
        with clock("mask"):
            masks = task.select(scores)
            apply_masks(model, masks)
            unspent = kept - count_kept(model, masks, "paper")
        with clock("diagnose"):
            orthogonality = layer_orthogonality(model)
            signal["pruned"] = read_signal(model, masks, input_shape, probe)
        if pruning.repair:
            with clock("repair"):
                method: Method = "frobenius" if pruning.repair is True else pruning.repair
                repairs = repair_isometry(model, masks, method=method)
            with clock("diagnose"):
                signal["repaired"] = read_signal(model, masks, input_shape, probe)

    record = {
        "seed": seed,
        "dense_parameters": count_parameters(model, study.counting),
        "kept_parameters": count_kept(model, masks, study.counting),
        "unspent": unspent,
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "collapsed_layers": collapsed_layers(masks),
        "signal": signal,
        "layers": describe_layers(masks, cost, orthogonality, layer_orthogonality(model), repairs),
        "seconds": clock.seconds,
    }
    return Sculpted(model, masks, scores, record)
