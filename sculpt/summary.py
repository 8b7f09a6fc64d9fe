"""Record of a trial, from the records of its seeds; input and machine it depends on."""

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from statistics import mean, stdev
from typing import Any

import torch

from sculpt.data import ImageSpec, Splits
from sculpt.errors import NumericsError
from sculpt.record import (
    RECORD_FORMAT,
    Costs,
    Device,
    Input,
    SeedRecord,
    Sizes,
    Spread,
    TensorInput,
    TrialRecord,
)
from sculpt.registry import OBJECTIVES
from sculpt.trial_setup import TrialSetup
from sculpt.version import VERSION


def summarize(setup: TrialSetup, splits: Splits, runs: list[SeedRecord]) -> TrialRecord:
    """Join the records of a trial's seeds into the trial's record.

    Raises:
        ValueError: a network missed the budget, which is a defect of sculpt.
        NumericsError: an objective of the study has no value, or one is not finite.
    """
    study, first = setup.study, runs[0]
    sizes = {run.kept_parameters for run in runs}
    # Whole groups, and effective weights, may leave a rest, which the record states.
    spent = {run.kept_parameters + run.unspent for run in runs}
    whole_groups = study.pruning.granularity in ("kernel", "channel")
    exact = not whole_groups and not study.pruning.effective and setup.macs is None
    if not setup.is_dense and (spent != {setup.budget} or (exact and sizes != {setup.budget})):
        raise ValueError(
            f"every pruned network must keep {setup.budget} parameters, but kept {sizes}"
        )
    errors = [run.val_error for run in runs]
    first_trainings = [run.first_training for run in runs if run.first_training]
    record = TrialRecord(
        trial=setup.label,
        objectives={},
        confirms=setup.confirms,
        arm=setup.arm,
        format=RECORD_FORMAT,
        study=study.study,
        role=setup.role,
        params=setup.params,
        counting=study.counting,
        budget=setup.budget,
        **{size.name: getattr(first, size.name) for size in fields(Sizes)},
        sparsity=1 - first.kept_parameters / first.dense_parameters,
        **{cost.name: _mean([getattr(run, cost.name) for run in runs]) for cost in fields(Costs)},
        latency=_mean([run.latency for run in runs]),
        latency_by=first.latency_by,
        val_error=Spread(
            mean=mean(errors), std=stdev(errors) if len(errors) > 1 else None, n=len(errors)
        ),
        val_errors=errors,
        test_errors=[run.test_error for run in runs],
        diverged=sum(run.diverged for run in runs),
        epochs=sum(run.history[-1].epoch for run in runs)
        + sum(training.epochs for training in first_trainings),
        seconds=sum(sum(run.seconds.values()) for run in runs),
        training_seconds=mean(run.seconds["train"] for run in runs)
        + sum(training.seconds for training in first_trainings) / len(runs),
        seeds=[run.seed for run in runs],
        layers=first.layers,
        signal=first.signal,
        compaction=first.compaction,
        runs=runs,
        config=study.model_dump(mode="json"),
        input=describe_input(splits),
        data_fingerprint=splits.fingerprint,
        **describe_machine(splits.train.device),
    )
    return replace(record, objectives=read_objectives(record, study.search.objectives))


def read_objectives(record: TrialRecord, chosen: Sequence[str]) -> dict[str, float]:
    """Read the value of each measured objective, by name.

    Raises:
        NumericsError: a chosen objective has no value, or a value is not finite.
    """
    read = {name: OBJECTIVES.get(name).read(record) for name in OBJECTIVES.names()}
    values = {name: float(value) for name, value in read.items() if value is not None}
    # Optuna would fail such a trial silently, and it would count as interrupted.
    missing = [name for name in chosen if name not in values]
    if missing or not all(map(math.isfinite, values.values())):
        raise NumericsError(
            f"objectives must be finite numbers, but are {values}"
            + (f", without {', '.join(missing)}" if missing else "")
        )
    return values


def describe_input(splits: Splits) -> Input | TensorInput:
    """Describe the input of networks on these images: shape, normalisation and classes."""
    train, spec = splits.train, splits.spec
    described = asdict(spec) | {
        "mean": train.mean.tolist(),
        "std": train.std.tolist(),
        "class_names": list(splits.class_names) or None,
    }
    if isinstance(spec, ImageSpec):
        return Input(**described)
    return TensorInput(**described | {"shape": list(spec.shape)})


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Describe the `device` and the `versions` that a measured figure depends on."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.machine()
    packages = ("torchvision", "optuna", "numpy")
    return {
        "device": Device(type=device.type, name=name, threads=torch.get_num_threads()),
        # torch's own string names its build (+cu..., +cpu).
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "sculpt": VERSION,
        }
        | {package: version(package) for package in packages},
    }


def _mean(values: list[Any]) -> Any:
    return None if None in values else mean(values)
