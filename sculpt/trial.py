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
from torch import Tensor, nn

from sculpt.config import Pruning, Sparsity, Study
from sculpt.data import ImageSet, ImageSpec, Splits
from sculpt.diagnostics.cost import Cost, measure_cost
from sculpt.diagnostics.orthogonality import (
    isometry_bound,
    layer_orthogonality,
    orthogonality_score,
)
from sculpt.diagnostics.propagation import jacobian_singular_values, summarize_jacobian
from sculpt.diagnostics.topology import measure_topology
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
from sculpt.pruning.task import Batches, PruningTask
from sculpt.registry import CRITERIA
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
    clock: "Clock",
    scoring: ImageSet | None = None,
) -> Sculpted:
    """Make a network sparse: build, initialise, score, mask, repair; see `run_seed`."""
    spec, device, pruning = splits.spec, splits.train.device, study.pruning
    input_shape = (spec.channels, spec.height, spec.width)
    # Any sample will do, and every network of a study should be looked at with the same one.
    probe = sample_inputs(splits.train, study.diagnostics.jacobian_images, seed=0)
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
    kept = prunable_budget(model, budget, study.counting)
    if role == "candidate":
        task = PruningTask(
            model,
            kept,
            batches=scoring_batches(scoring or splits.train, pruning, seed),
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
        "unspent": kept - count_kept(model, masks, "paper"),
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "collapsed_layers": collapsed_layers(masks),
        "signal": signal,
        "layers": describe_layers(masks, cost, orthogonality, layer_orthogonality(model), repairs),
        "seconds": clock.seconds,
    }
    return Sculpted(model, masks, scores, record)


def scoring_batches(images: ImageSet, pruning: Pruning, seed: int) -> Batches:
    """Return what starts a pass over the images that scores are computed on."""
    if pruning.images is not None and pruning.images < len(images):
        images = images.subset(draw_indices(len(images), pruning.images, seed))
    return partial(images.batches, pruning.batch_size)


def sample_inputs(images: ImageSet, count: int | Literal["all"], *, seed: int) -> Tensor:
    """Return `count` images, normalised, drawn without replacement: (count, C, H, W)."""
    if count == "all" or count >= len(images):
        return images.inputs(slice(None))
    return images.inputs(draw_indices(len(images), count, seed).to(images.device))


def draw_indices(total: int, count: int, seed: int) -> Tensor:
    """Return `count` different indices below `total`, int64, on the CPU."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "sample"))
    return torch.randperm(total, generator=generator)[:count]


def lowest_test_error(history: list[Epoch]) -> float | None:
    """Return the lowest test error of the evaluations; None where the test set was not read."""
    errors = [epoch.test_error for epoch in history if epoch.test_error is not None]
    return min(errors, default=None)


def read_signal(
    model: nn.Module, masks: Masks, input_shape: tuple[int, ...], probe: Tensor
) -> dict[str, Any]:
    """Return how signals travel through a network as it stands.

    The orthogonality score, the effective counts, and the singular values of the input-output
    Jacobian, pooled over the images of `probe` (None where there are no images).
    """
    topology = measure_topology(model, masks, input_shape)
    jacobian = None
    if len(probe):
        # Convolutions take four times as long in float64, and agree to six digits in float32.
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in model.modules())
        dtype = torch.float32 if convolves else torch.float64
        values = jacobian_singular_values(model, probe, dtype=dtype)
        jacobian = asdict(summarize_jacobian(values))
    return {
        "orthogonality_score": orthogonality_score(layer_orthogonality(model)),
        "effective_nodes": topology.nodes,
        "effective_parameters": topology.parameters,
        "log10_paths": topology.log10_paths,
        "jacobian": jacobian,
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
            "repair_seconds": repairs[name].seconds if name in repairs else 0.0,
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
    # Only whole groups, or only effective weights, may leave a rest: the record says how much.
    spent = {record["kept_parameters"] + record["unspent"] for record in records}
    exact = study.pruning.granularity == "weight" and not study.pruning.effective
    if role == "candidate" and (spent != {budget} or (exact and sizes != {budget})):
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
        "unspent": first["unspent"],
        "sparsity": 1 - first["kept_parameters"] / first["dense_parameters"],
        "dense_macs": first["dense_macs"],
        "kept_macs": mean(record["kept_macs"] for record in records),
        "val_error": {
            "mean": mean(errors),
            "std": stdev(errors) if len(errors) > 1 else None,
            "n": len(errors),
        },
        "val_errors": errors,
        "test_errors": [record["test_error"] for record in records],
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
class Clock:
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
