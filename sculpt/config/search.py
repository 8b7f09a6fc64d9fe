"""The search of a study: trials, sampler, objectives, early stopping, confirmation."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from sculpt.config.opponents import Control
from sculpt.config.sections import Epochs, Fraction, Section, Seed

Sampler = Literal[
    "auto", "brute_force", "grid", "random", "quasi_random", "tpe", "nsga2", "nsga3", "gp"
]

Runtime = Literal["torch", "onnxruntime", "c"]
"""Runtimes of exported networks: PyTorch, ONNX Runtime, or their own C code."""


T = TypeVar("T", bound=str)

YEAR = 365 * 24 * 3600
"""In seconds."""


def each_once(names: list[T]) -> list[T]:
    """Refuse a list that names something twice, by a ValueError."""
    if len(set(names)) < len(names):
        raise ValueError("have each name once")
    return names


class EarlyStopping(Section):
    """Asynchronous successive halving (Li et al. 2018): rungs of ever more epochs.

    A candidate continues past a rung only if it is among the best `1 / factor` of all that have
    reached it. Its first seed is judged; the others are trained if that one is not stopped.
    """

    first_rung: Epochs = 1
    """Epochs of the first rung; each further rung has `factor` times as many."""
    factor: Annotated[int, Field(ge=2, le=1000)] = 3
    brackets: Annotated[int, Field(ge=1, le=20)] = 1
    """More than one is Hyperband (Li et al. 2017): each bracket omits one more of the first rungs,
    in case early epochs mislead. Trials alternate between brackets."""
    objectives: Annotated[list[str], AfterValidator(each_once)] = Field(
        default=["val_error"], min_length=1
    )
    """Judged objectives: the validation error, and those known before training, by which a worse
    but cheaper candidate may continue."""
    proxy: str | None = None
    """Measure of the pruned network that is judged before training: one of
    `sculpt.quantities.proxies`."""
    keep: Fraction = 0.5
    """Share of the candidates that the proxy lets through."""


class Confirm(Section):
    """Retrain the best candidates and the base on fresh seeds, and read the test set once."""

    top: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Number of candidates, by validation error; with several budgets, for each."""
    cheap: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Number of further candidates: the best with no more multiply-accumulates than the base."""
    seeds: Annotated[int, Field(ge=2, le=1000)] = 8
    """With 8 or more, differences are resampled (bootstrap-t), with fewer by Student's t."""
    control: Control | Annotated[list[Control], AfterValidator(each_once)] | None = None
    """Also train each with its mask shuffled within the layers (`shuffled`, Frankle et al. 2021),
    with a random one (`erk`), or both, as a list."""

    @property
    def controls(self) -> list[Control]:
        """The controls of each candidate."""
        given = self.control
        return [given] if isinstance(given, str) else list(given or [])


class Search(Section):
    """Number and choice of trials, and their objectives."""

    trials: Annotated[int, Field(ge=2, le=10**6)] | Literal["all"]
    """TOTAL of trials, the dense base included; `all` = every feasible point of the space."""
    sampler: Sampler = "auto"
    """Optuna's, by name; `grid` is in the order of the space, `auto` picks one by the space."""
    seed: Seed = 0
    early_stopping: EarlyStopping | None = None
    """By default none: every candidate is trained to the end."""
    confirm: Confirm | None = None
    """Confirmation after the search; by default none."""
    replicates: Annotated[int, Field(ge=1, le=1000)] = 1
    """Seeds per trial: `seed`, `seed + 1`, ...; the same for base and candidates (paired)."""
    objectives: Annotated[list[str], AfterValidator(each_once)] = Field(
        default=["val_error", "kept_macs"], min_length=1
    )
    """Default objectives of the Pareto front."""
    latency_runtime: Runtime = "torch"
    """Runtime in which `latency` is measured; only `c` skips zeros."""
    networks: Literal["all", "front", "none"] = "all"
    """Trained networks kept for export: all; those of the base, the opponents and the Pareto
    front; or none. Records are always kept."""
    grace_seconds: Annotated[float, Field(ge=2, le=YEAR)] = 60.0
    """A trial is taken over after its worker has been silent for this long."""
    checkpoint_seconds: Annotated[float, Field(ge=0, le=YEAR)] = 60.0
    """Least time between checkpoints, which are written at the end of an epoch."""

    @property
    def seeds(self) -> range:
        """The seeds of every trial of the search."""
        return range(self.seed, self.seed + self.replicates)
