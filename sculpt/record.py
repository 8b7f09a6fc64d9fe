"""What is recorded of a trial: its layers, how signals travel, its seeds together, the machine."""

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from statistics import mean, stdev
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sculpt.config import Study
from sculpt.data import Splits
from sculpt.diagnostics.cost import Cost, training_memory
from sculpt.diagnostics.orthogonality import (
    isometry_bound,
    layer_orthogonality,
    orthogonality_score,
)
from sculpt.diagnostics.propagation import jacobian_singular_values, summarize_jacobian
from sculpt.diagnostics.topology import Topology
from sculpt.pruning.isometry import LayerRepair
from sculpt.pruning.masks import Masks, Scores, collapsed_layers, count_kept, count_parameters
from sculpt.training.loop import Epoch, Trained

Role = Literal["base", "candidate"]
RECORD_FORMAT = 1

MAYBE_MEASURED = ("dense_memory", "score_kept", "score_share", "latency")
"""Of a trial: the mean of its seeds, None if any of them has none."""


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


def read_signal(model: nn.Module, topology: Topology, probe: Tensor) -> dict[str, Any]:
    """Return how signals travel through a network as it stands.

    The orthogonality score, the effective counts, and the singular values of the input-output
    Jacobian, pooled over the images of `probe` (None where there are no images).
    """
    jacobian = None
    if len(probe):
        # Convolutions take four times as long in float64, and agree to six digits in float32.
        convolves = any(p.dim() > 2 for p in model.parameters())
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


def describe_pruning(
    study: Study, model: nn.Module, masks: Masks, scores: Scores, cost: Cost
) -> dict[str, Any]:
    """Return what the dense and the pruned network cost (MACs per image, bytes), and the scores."""
    dense = count_parameters(model, study.counting)
    return {
        "dense_parameters": dense,
        "kept_parameters": count_kept(model, masks, study.counting),
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "dense_memory": training_memory(dense, cost, study.training.batch_size),
        "collapsed_layers": collapsed_layers(masks),
        **describe_scores(scores, masks),
    }


def describe_layers(
    masks: Masks,
    cost: Cost,
    topology: Topology,
    before: dict[str, float],
    after: dict[str, float],
    repairs: dict[str, LayerRepair],
) -> list[dict[str, Any]]:
    """Return one row per weight: what is kept, its cost, and its isometry around the repair.

    `effective_channels` are those of the layer's outputs that lie on a path.
    """
    return [
        {
            "name": name,
            "shape": list(masks[name].shape),
            "kept": int(masks[name].sum()),
            "density": float(masks[name].double().mean()),
            "kept_macs": int(masks[name].sum()) * positions,
            "effective_channels": topology.channels[name],
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


def describe_scores(scores: Scores, masks: Masks) -> dict[str, float | None]:
    """Return how much of the criterion's scores the masks keep: a sum, and its share of all.

    Of the scores as the criterion gave them, before any price. The share lies from 0 to 1 where
    no score is negative. None for the base, which is not scored, and where a sum is not finite;
    a sum of 0 has no shares.
    """
    sums = [
        (float(score.double().sum()), float(score[masks[name]].double().sum()))
        for name, score in scores.items()
    ]
    total, kept = (sum(part) for part in zip(*sums, strict=True)) if sums else (0.0, math.nan)
    share = kept / total if total else math.nan
    return {
        "score_kept": kept if math.isfinite(kept) else None,
        "score_share": share if math.isfinite(share) and math.isfinite(total) else None,
    }


def describe_run(trained: Trained) -> dict[str, Any]:
    """Return how the training of a seed went, and the losses and errors that it ended in."""
    last = trained.history[-1]
    return {
        "training": trained.facts | {"resumed_at": trained.resumed_at},
        "diverged": trained.diverged,
        "val_error": last.val_error,
        "val_loss": last.val_loss,
        "test_error": lowest_test_error(trained.history),
        "train_loss": last.train_loss,
        "history": [asdict(epoch) for epoch in trained.history],
    }


def lowest_test_error(history: list[Epoch]) -> float | None:
    """Return the lowest test error of the evaluations; None where the test set was not read."""
    errors = [epoch.test_error for epoch in history if epoch.test_error is not None]
    return min(errors, default=None)


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
        **{key: _mean([record.get(key) for record in records]) for key in MAYBE_MEASURED},
        "latency_by": first.get("latency_by"),
        "val_error": {
            "mean": mean(errors),
            "std": stdev(errors) if len(errors) > 1 else None,
            "n": len(errors),
        },
        "val_errors": errors,
        "test_errors": [record["test_error"] for record in records],
        "diverged": sum(record["diverged"] for record in records),
        "epochs": sum(record["history"][-1]["epoch"] for record in records),
        "seconds": sum(sum(record["seconds"].values()) for record in records),
        "training_seconds": mean(record["seconds"]["train"] for record in records),
        "seeds": [record["seed"] for record in records],
        "layers": first["layers"],
        "signal": first["signal"],
        "compaction": first["compaction"],
        "runs": records,
        "config": study.model_dump(mode="json"),
        "input": describe_input(splits),
        "data_fingerprint": splits.fingerprint,
        **describe_machine(splits.train.device),
    }


def describe_input(splits: Splits) -> dict[str, Any]:
    """Return what networks are fed: (pixel / 255 - mean) / std of each channel, in float32.

    The numbers are exactly those used. Records of earlier versions lack all this.
    """
    train = splits.train
    return asdict(splits.spec) | {
        "mean": train.mean.tolist(),
        "std": train.std.tolist(),
        "class_names": list(splits.class_names) or None,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


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
