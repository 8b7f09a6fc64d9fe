"""One trial, as the method reads: build, initialise, score, mask, repair, compact, train, measure.

Lee et al., *A Signal Propagation Perspective for Pruning Neural Networks at Initialization*,
ICLR 2020. Signal propagation is read after initialisation, after pruning and after repair.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sculpt.compaction import compact_where_it_pays
from sculpt.config import Study
from sculpt.data import ImageSet, ImageSpec, Splits
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.orthogonality import layer_orthogonality
from sculpt.diagnostics.topology import measure_topology
from sculpt.errors import NumericsError
from sculpt.export.latency import describe_latency, measure_latency
from sculpt.models import build_network
from sculpt.pruning.initializers import initialize
from sculpt.pruning.isometry import LayerRepair, Method, repair_isometry
from sculpt.pruning.masks import (
    Masks,
    Scores,
    apply_masks,
    count_kept,
    count_parameters,
    dense_masks,
    prunable_budget,
)
from sculpt.pruning.selection import Selection
from sculpt.pruning.task import PruningTask
from sculpt.pruning.trained import check_not_repaired
from sculpt.record import Clock, Role, describe_layers, describe_pruning, describe_run, read_signal
from sculpt.registry import CRITERIA
from sculpt.sculpted import Sculpted, checkpoint_in, read_sculpted, write_sculpted
from sculpt.seeding import derive_seed
from sculpt.training.evaluation import evaluate
from sculpt.training.loop import Epoch, train
from sculpt.training.memory import within_memory
from sculpt.training.precision import float32_products

FEW = slice(2)
"""Images that a compact network is compared on with the whole one."""


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed, its masks, and everything that was measured of it."""

    model: nn.Module
    masks: Masks
    record: dict[str, Any]


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


def run_seed(
    study: Study,
    splits: Splits,
    *,
    role: Role,
    budget: int,
    seed: int,
    scoring: ImageSet | None = None,
    on_sculpted: Callable[[dict[str, Any]], None] = lambda record: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    folder: Path | None = None,
    on_written: Callable[[Path], None] = lambda file: None,
    read_test: bool = False,
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
        on_sculpted:
            Called once before training, with what is known then (`Sculpted.record`).
        on_epoch:
            Called after each evaluated epoch.
        folder:
            Where to write the run down; if it was interrupted, it goes on from there.
        on_written:
            Called with each file that was written in the folder.
        read_test:
            Read the test images once, after training, unless the protocol reads them anyway.

    Raises:
        BudgetError: the network is too small for the budget.
        DryRankingError: the criterion ranks too few weights.
        NumericsError: a score is not finite, or the base diverged.
        DeviceMemoryError: the device is too small for the network.
    """
    device = splits.train.device
    clock = Clock(device)
    # Scores and isometry are computed in float32 proper, which CUDA's convolutions are not.
    with within_memory(device), float32_products("float32", device):
        sculpted = folder and read_sculpted(folder, build_model(study, splits.spec), device)
        if not sculpted:
            sculpted = sculpt_network(
                study, splits, role=role, budget=budget, seed=seed, scoring=scoring, clock=clock
            )
            if folder:
                on_written(write_sculpted(folder, sculpted))
        on_sculpted(sculpted.record)
        model, masks = sculpted.model, sculpted.masks
        compaction, plan = None, None
        if study.training.compact and role == "candidate":
            with clock("compact"):
                compaction, plan = compact_where_it_pays(model, masks, splits.train.inputs(FEW))
        with clock("train"):
            trained = train(
                compaction.model if compaction else model,
                compaction.masks if compaction else masks,
                splits,
                study.training,
                seed=seed,
                on_epoch=on_epoch,
                checkpoint=checkpoint_in(folder, study.search.checkpoint_seconds, on_written),
            )
        if compaction:
            compaction.restore()
        measured = describe_run(trained) | {"compaction": plan, "latency": None}
        if read_test and study.training.protocol == "validation":
            precision = trained.facts["precision"]
            with clock("test"), float32_products(precision, device):
                _, measured["test_error"] = evaluate(model, splits.test, precision=precision)
        if "latency" in study.search.objectives:
            runtime = study.search.latency_runtime
            with clock("latency"):
                measured["latency"] = measure_latency(
                    model, masks, splits.train.inputs(FEW), runtime=runtime
                )
                measured["latency_by"] = describe_latency(runtime)
    if role == "base" and trained.diverged:
        raise NumericsError(
            "the loss of the dense base must stay finite, or nothing can be ranked against it, "
            f"but is not in epoch {trained.history[-1].epoch}; lower training.learning_rate "
            f"(now {study.training.learning_rate})"
        )
    seconds = sculpted.record["seconds"] | clock.seconds
    if trained.resumed_at:
        seconds["train"] = sum(epoch.seconds for epoch in trained.history)
    return Outcome(model, masks, sculpted.record | measured | {"seconds": seconds})


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
        topology = measure_topology(model, masks, input_shape)
        signal["initial"] = read_signal(model, topology, probe)

    scores: Scores = {}
    repairs: dict[str, LayerRepair] = {}
    orthogonality = layer_orthogonality(model)
    unspent = 0
    if role == "candidate":
        check_not_repaired(pruning.initializer.name, pruning.repair)
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
            topology = measure_topology(model, masks, input_shape)
            signal["pruned"] = read_signal(model, topology, probe)
        if pruning.repair:
            with clock("repair"):
                method: Method = "frobenius" if pruning.repair is True else pruning.repair
                repairs = repair_isometry(model, masks, method=method)
            with clock("diagnose"):
                signal["repaired"] = read_signal(model, topology, probe)  # of the same paths

    record = {
        "seed": seed,
        "unspent": unspent,
        **describe_pruning(study, model, masks, scores, cost),
        "signal": signal,
        "layers": describe_layers(
            masks, cost, topology, orthogonality, layer_orthogonality(model), repairs
        ),
        "seconds": dict(clock.seconds),
    }
    return Sculpted(model, masks, scores, record)
