"""One trial, as the method reads: build, initialise, score, mask, repair, train, measure.

Lee et al., *A Signal Propagation Perspective for Pruning Neural Networks at Initialization*,
ICLR 2020. Signal propagation is read after initialisation, after pruning and after repair.
"""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from statistics import mean, stdev
from time import perf_counter
from typing import Any, Literal

import torch
from torch import nn

from sculpt.config import Study
from sculpt.data import ImageSpec, Splits
from sculpt.diagnostics.cost import Cost, measure_cost
from sculpt.diagnostics.orthogonality import layer_orthogonality, orthogonality_score
from sculpt.diagnostics.topology import measure_topology
from sculpt.pruning.initializers import initialize
from sculpt.pruning.isometry import LayerRepair, isometry_bound, repair_isometry
from sculpt.pruning.masks import (
    Masks,
    apply_masks,
    count_kept,
    count_parameters,
    dense_masks,
    keep_highest,
    prunable_budget,
)
from sculpt.registry import CRITERIA, MODELS
from sculpt.seeding import derive_seed
from sculpt.training.loop import Epoch, train

Role = Literal["base", "candidate"]
RECORD_FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    """A trained network of one seed, its masks, and everything that was measured of it."""

    model: nn.Module
    masks: Masks
    record: dict[str, Any]


def build_model(study: Study, spec: ImageSpec) -> nn.Module:
    """Build the study's network, untrained, on the current default device."""
    family = MODELS.get(study.model.name)
    return family(spec.channels, spec.classes, **study.model.options)


def resolve_budget(study: Study, spec: ImageSpec) -> int:
    """Return the study's budget as a number; `base` is the size of the dense base."""
    if study.budget != "base":
        return study.budget
    with torch.device("meta"):
        return count_parameters(build_model(study, spec), study.counting)


def run_seed(
    study: Study,
    splits: Splits,
    *,
    role: Role,
    budget: int,
    seed: int,
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
        on_epoch:
            Called after each training epoch.

    Raises:
        BudgetError: the network is too small for the budget.
        DryRankingError: the criterion ranks too few weights.
        NumericsError: a score or the training loss is not finite.
    """
    spec, device, pruning = splits.spec, splits.train.device, study.pruning
    input_shape = (spec.channels, spec.height, spec.width)
    clock = _Clock(device)
    signal = {}

    with clock("build"):
        model = build_model(study, spec).to(device).to(memory_format=torch.channels_last)
        masks = dense_masks(model)
        cost = measure_cost(model, input_shape)

    with clock("initialise"):
        initialize(model, pruning.initializer.name, seed=seed, **pruning.initializer.options)
    with clock("diagnose"):
        signal["initial"] = read_signal(model, masks, input_shape)

    repairs: dict[str, LayerRepair] = {}
    orthogonality = layer_orthogonality(model)
    if role == "candidate":
        kept = prunable_budget(model, budget, study.counting)
        with clock("score"):
            scores = CRITERIA.get(pruning.criterion.name)(
                model,
                partial(splits.train.batches, pruning.batch_size),
                torch.Generator().manual_seed(derive_seed(seed, "criterion")),
                **pruning.criterion.options,
            )
        with clock("mask"):
            masks = keep_highest(scores, kept)
            apply_masks(model, masks)
        with clock("diagnose"):
            orthogonality = layer_orthogonality(model)
            signal["pruned"] = read_signal(model, masks, input_shape)
        if pruning.repair:
            with clock("repair"):
                repairs = repair_isometry(model, masks)
            with clock("diagnose"):
                signal["repaired"] = read_signal(model, masks, input_shape)

    layers = describe_layers(masks, cost, orthogonality, layer_orthogonality(model), repairs)

    with clock("train"):
        history = train(model, masks, splits, study.training, seed=seed, on_epoch=on_epoch)

    record = {
        "seed": seed,
        "dense_parameters": count_parameters(model, study.counting),
        "kept_parameters": count_kept(model, masks, study.counting),
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "val_error": history[-1].val_error,
        "val_loss": history[-1].val_loss,
        "train_loss": history[-1].train_loss,
        "signal": signal,
        "layers": layers,
        "history": [asdict(epoch) for epoch in history],
        "seconds": clock.seconds,
    }
    return Outcome(model, masks, record)


def read_signal(model: nn.Module, masks: Masks, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the orthogonality score and the effective counts of a network as it stands."""
    topology = measure_topology(model, masks, input_shape)
    return {
        "orthogonality_score": orthogonality_score(layer_orthogonality(model)),
        "effective_nodes": topology.nodes,
        "effective_parameters": topology.parameters,
        "log10_paths": topology.log10_paths,
    }


def describe_layers(
    masks: Masks,
    cost: Cost,
    before: dict[str, float],
    after: dict[str, float],
    repairs: dict[str, LayerRepair],
) -> list[dict[str, Any]]:
    """Return one row per weight: what is kept, its cost, and its isometry around the repair."""
    return [
        {
            "name": name,
            "shape": list(masks[name].shape),
            "kept": int(masks[name].sum()),
            "density": float(masks[name].double().mean()),
            "kept_macs": int(masks[name].sum()) * positions,
            "orthogonality_before": before[name],
            "orthogonality_after": after[name],
            "orthogonality_bound": (
                repairs[name].bound if name in repairs else isometry_bound(masks[name])
            ),
            "repair_steps": repairs[name].steps if name in repairs else 0,
        }
        for name, positions in cost.positions.items()
    ]


def summarize(
    study: Study,
    splits: Splits,
    records: list[dict[str, Any]],
    *,
    role: Role,
    params: dict[str, Any],
    budget: int,
) -> dict[str, Any]:
    """Join the records of a trial's seeds into the trial's record.

    Raises:
        ValueError: a network missed the budget, which is a defect of sculpt.
    """
    first = records[0]
    sizes = {record["kept_parameters"] for record in records}
    if role == "candidate" and sizes != {budget}:
        raise ValueError(f"every candidate must keep {budget} parameters, but kept {sizes}")
    errors = [record["val_error"] for record in records]
    return {
        "format": RECORD_FORMAT,
        "study": study.study,
        "role": role,
        "params": params,
        "counting": study.counting,
        "budget": budget,
        "dense_parameters": first["dense_parameters"],
        "kept_parameters": first["kept_parameters"],
        "sparsity": 1 - first["kept_parameters"] / first["dense_parameters"],
        "dense_macs": first["dense_macs"],
        "kept_macs": mean(record["kept_macs"] for record in records),
        "val_error": {
            "mean": mean(errors),
            "std": stdev(errors) if len(errors) > 1 else None,
            "n": len(errors),
        },
        "val_errors": errors,
        "seconds": sum(sum(record["seconds"].values()) for record in records),
        "training_seconds": mean(record["seconds"]["train"] for record in records),
        "seeds": [record["seed"] for record in records],
        "layers": first["layers"],
        "signal": first["signal"],
        "runs": records,
        "config": study.model_dump(mode="json"),
        "data_fingerprint": splits.fingerprint,
        **describe_machine(splits.train.device),
    }


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the device and the versions that a measured figure depends on."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.machine()
    packages = ("sculpt", "torchvision", "optuna", "numpy")
    return {
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
        # torch's own word says which build it is (+cu..., +cpu).
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)}
        | {package: version(package) for package in packages},
    }


@dataclass
class _Clock:
    """Seconds per phase; waits for the device before it reads the time."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[phase] = self.seconds.get(phase, 0.0) + perf_counter() - start
