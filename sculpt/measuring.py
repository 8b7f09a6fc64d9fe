"""Measurements of one network while it is pruned, repaired and trained."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import nn

from sculpt.arithmetic import float32_products
from sculpt.data import Splits
from sculpt.diagnostics.cost import measure_cost, training_memory
from sculpt.diagnostics.layers import kept_weights, weighted_layers
from sculpt.diagnostics.orthogonality import layer_bound, layer_orthogonality, orthogonality_score
from sculpt.diagnostics.propagation import jacobian_singular_values, summarize_jacobian
from sculpt.diagnostics.report import describe_layers
from sculpt.diagnostics.topology import Topology, measure_topology
from sculpt.errors import NumericsError
from sculpt.export.latency import describe_latency, measure_latency
from sculpt.pruning.masks import (
    Masks,
    Scores,
    collapsed_layers,
    count_kept,
    count_parameters,
    prunable_budget,
)
from sculpt.record import (
    FirstTraining,
    LayerRow,
    Milestone,
    MovedMasks,
    SculptedRecord,
    SeedRecord,
    Signal,
)
from sculpt.repair.isometry import LayerRepair
from sculpt.training.loop import Trained
from sculpt.training.loss_and_error import evaluate
from sculpt.trial_setup import Sculpted, TrialSetup, check_classes

FEW = slice(2)
"""Images that give the shape of an input, or to compare a compact network on."""


@dataclass
class Clock:
    """Seconds per phase, read after the device is idle."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start


class Measuring:
    """Measures one network of a trial between the phases of the method, and times these."""

    def __init__(self, setup: TrialSetup, splits: Splits, seed: int):
        self.clock = Clock(splits.train.device)
        self.seed = seed
        self.repairs: dict[str, LayerRepair] = {}
        """Outcome of the repair by layer; set by the trial."""
        self._setup, self._splits = setup, splits
        # Any sample will do, but the same one for every network of a study.
        looked_at = setup.study.diagnostics.jacobian_images
        self._probe = splits.train.sample(None if looked_at == "all" else looked_at, seed=0)
        self.first: Trained | None = None
        """Outcome of a dense training before pruning."""
        self._signal: dict[Milestone, Signal] = {}
        self._orthogonality: dict[Milestone, dict[str, float]] = {}
        self._topology: Topology

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self._splits.spec.shape

    def read(self, milestone: Milestone, model: nn.Module, masks: Masks) -> None:
        """Measure the signal propagation of a network at a milestone."""
        with self.clock("diagnose"):
            if milestone != "repaired":  # with unchanged paths
                self._topology = measure_topology(model, masks, self.input_shape)
            topology = self._topology
            orthogonality = self._orthogonality[milestone] = layer_orthogonality(model)
            jacobian = None
            if len(self._probe):
                # Convolutions take four times as long in float64, and agree to six digits.
                convolves = any(p.dim() > 2 for p in model.parameters())
                dtype = torch.float32 if convolves else torch.float64
                values = jacobian_singular_values(model, self._probe.inputs(), dtype=dtype)
                jacobian = summarize_jacobian(values)
            self._signal[milestone] = Signal(
                orthogonality_score=orthogonality_score(orthogonality),
                effective_nodes=topology.nodes,
                effective_parameters=topology.parameters,
                log10_paths=topology.log10_paths,
                jacobian=jacobian,
            )

    def trained_first(self, trained: Trained) -> None:
        """Take down the outcome of a dense training before pruning.

        Raises:
            NumericsError: its loss was not finite.
        """
        self.first = trained
        if trained.diverged:
            raise NumericsError(
                "the first training must converge for its weights to be pruned, but its loss is "
                "not finite; lower training.learning_rate"
            )

    def sculpted(self, model: nn.Module, masks: Masks, scores: Scores) -> SculptedRecord:
        """Make the record of a network before training."""
        study, repairs = self._setup.study, self.repairs
        with self.clock("build"):
            cost = measure_cost(model, self.input_shape)
            check_classes(cost, self._splits.spec, study.model.name)
            dense = count_parameters(model, study.counting)
        unspent = 0
        if not self._setup.is_dense:
            spendable = prunable_budget(model, self._setup.budget, study.counting)
            # A dense network is still to shrink to its budget.
            unspent = max(0, spendable - count_kept(model, masks, "paper"))
        limit = self._setup.macs
        score_kept, score_share = kept_scores(scores, masks)
        steps = list(self._orthogonality.values())
        before, after = self._orthogonality.get("pruned", steps[0]), steps[-1]
        layers, first = describe_layers(masks, cost, self._topology), self._first_training()
        weighted = weighted_layers(model)
        return SculptedRecord(
            seed=self.seed,
            dense_parameters=dense,
            kept_parameters=count_kept(model, masks, study.counting),
            unspent=unspent,
            dense_macs=cost.dense_macs,
            kept_macs=cost.kept_macs(masks),
            unspent_macs=None if limit is None else limit - cost.kept_macs(masks),
            dense_memory=training_memory(dense, cost, study.training.batch_size),
            score_kept=score_kept,
            score_share=score_share,
            collapsed_layers=collapsed_layers(masks),
            signal=self._signal,
            layers=[
                LayerRow(
                    **layer,
                    orthogonality_before=before[name],
                    orthogonality_after=after[name],
                    orthogonality_bound=repair.bound
                    if repair
                    else layer_bound(weighted[name], masks[name]),
                    repair_steps=repair.steps if repair else 0,
                    repair_seconds=repair.seconds if repair else 0.0,
                )
                for name, layer in layers.items()
                for repair in [repairs.get(name)]
            ],
            seconds=dict(self.clock.seconds),
            first_training=first,
        )

    def trained(
        self,
        sculpted: Sculpted,
        masks: Masks,
        trained: Trained,
        compaction: Mapping[str, object] | None,
    ) -> SeedRecord:
        """Make the record of a trained network, with test error and latency where the study asks.

        The masks are those after training.

        Raises:
            NumericsError: the base diverged.
        """
        setup, last = self._setup, trained.history[-1]
        if setup.role == "base" and trained.diverged:
            raise NumericsError(
                "the loss of the dense base must stay finite, or nothing can be ranked against "
                f"it, but is not in epoch {last.epoch}; lower training.learning_rate "
                f"(now {setup.study.training.learning_rate})"
            )
        test_error = self._test_error(sculpted.model, trained)
        latency, latency_by = self._latency(sculpted.model, masks)
        before = vars(sculpted.record)
        if trained.moved is not None:
            before = before | self._after_moves(sculpted, masks, trained.moved)
        seconds = sculpted.record.seconds | self.clock.seconds
        if trained.facts.resumed_at:
            seconds["train"] = sum(epoch.seconds for epoch in trained.history)
        return SeedRecord(
            **before | {"seconds": seconds},
            training=trained.facts,
            diverged=trained.diverged,
            val_error=last.val_error,
            val_loss=last.val_loss,
            test_error=test_error,
            train_loss=last.train_loss,
            history=trained.history,
            compaction=compaction,
            latency=latency,
            latency_by=latency_by,
        )

    def _first_training(self) -> FirstTraining | None:
        """Describe a dense training before pruning."""
        if (first := self.first) is None:
            return None
        if first.facts.resumed_at:
            self.clock.seconds["train_first"] = sum(epoch.seconds for epoch in first.history)
        return FirstTraining(
            epochs=first.history[-1].epoch,
            seconds=self.clock.seconds["train_first"],
            history=first.history,
        )

    def _after_moves(self, sculpted: Sculpted, masks: Masks, moved: int) -> dict[str, Any]:
        """Describe masks that have moved, and make the fields of the record that they change."""
        model, start = sculpted.model, sculpted.masks
        with self.clock("diagnose"):
            cost, topology = (
                measure_cost(model, self.input_shape),
                measure_topology(model, masks, self.input_shape),
            )
        now = describe_layers(masks, cost, topology)
        kept = sum(int((masks[name] & start[name]).sum()) for name in masks)
        return {
            "kept_parameters": count_kept(model, masks, self._setup.study.counting),
            "kept_macs": cost.kept_macs(masks),
            "collapsed_layers": collapsed_layers(masks),
            "layers": [replace(layer, **now[layer.name]) for layer in sculpted.record.layers],
            "moved": MovedMasks(
                weights=moved,
                kept_at_start={layer.name: layer.kept for layer in sculpted.record.layers},
                still_kept=kept / kept_weights(start),
            ),
        }

    def _test_error(self, model: nn.Module, trained: Trained) -> float | None:
        """Find the lowest test error of the evaluations, or measure it once if the setup allows."""
        if self._setup.study.training.protocol == "validation" and self._setup.read_test:
            precision = trained.facts.precision
            with self.clock("test"), float32_products(precision, self.clock.device):
                return evaluate(model, self._splits.test, precision=precision)[1]
        errors = [epoch.test_error for epoch in trained.history if epoch.test_error is not None]
        return min(errors, default=None)

    def _latency(self, model: nn.Module, masks: Masks) -> tuple[float | None, str | None]:
        """Measure the seconds for one image if they are an objective; also describe how."""
        if "latency" not in self._setup.study.search.objectives:
            return None, None
        runtime = self._setup.study.search.latency_runtime
        with self.clock("latency"):
            image = self._splits.train.inputs(FEW)
            seconds = measure_latency(model, masks, image, runtime=runtime)
            return seconds, describe_latency(runtime)


def kept_scores(scores: Scores, masks: Masks) -> tuple[float | None, float | None]:
    """Sum the scores that the masks keep, and compute their share of all.

    Both are None without scores; either is None if a sum is not finite, the share also if all
    scores sum to 0.
    """
    sums = [
        (float(score.double().sum()), float(score[masks[name]].double().sum()))
        for name, score in scores.items()
    ]
    total, kept = (sum(part) for part in zip(*sums, strict=True)) if sums else (0.0, math.nan)
    share = kept / total if total else math.nan
    return (
        kept if math.isfinite(kept) else None,
        share if math.isfinite(share) and math.isfinite(total) else None,
    )
