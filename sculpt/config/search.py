"""How a study is searched: how many trials, by which sampler, judged by what."""

from typing import Annotated, Literal

from pydantic import Field

from sculpt.config.sections import Fraction, Section

Sampler = Literal[
    "auto", "brute_force", "grid", "random", "quasi_random", "tpe", "nsga2", "nsga3", "gp"
]

Runtime = Literal["torch", "onnxruntime", "c"]
"""What runs an exported network: PyTorch, ONNX Runtime, or its own C code."""


class EarlyStopping(Section):
    """Asynchronous successive halving (Li et al. 2018): rungs of ever more epochs.

    A candidate goes on past a rung only if, of all that have reached it, it is among the best
    `1 / factor`. Its first seed is judged; the others are trained if that one gets through.
    """

    first_rung: Annotated[int, Field(ge=1)] = 1
    """Epochs before the first look; the next looks come after `factor` times as many each."""
    factor: Annotated[int, Field(ge=2)] = 3
    brackets: Annotated[int, Field(ge=1)] = 1
    """More than one is Hyperband (Li et al. 2017): each bracket leaves out one more of the
    first rungs, in case a network is not known by its first epochs. Trials take turns."""
    objectives: list[str] = Field(default=["val_error"], min_length=1)
    """What is judged: the validation error, and objectives that are known before training, with
    which a candidate that is worse but cheaper may go on."""
    proxy: str | None = None
    """Judge, before a candidate is trained at all, this measure of the pruned network: one of
    `sculpt.quantities.proxies`."""
    keep: Fraction = 0.5
    """Share of the candidates that the proxy lets through."""


class Confirm(Section):
    """Train the best candidates and the base again, on fresh seeds, and read the test set once."""

    top: Annotated[int, Field(ge=1)] = 3
    """How many candidates, by validation error; of a study with several budgets, for each."""
    cheap: Annotated[int, Field(ge=0)] = 0
    """Also this many, the best of those that keep no more multiply-accumulates than the base."""
    seeds: Annotated[int, Field(ge=2)] = 8
    """From 8 on, differences are resampled (bootstrap-t); below, Student's t takes its place."""
    control: Literal["shuffled"] | None = None
    """Also train each of them with its mask shuffled within the layers (Frankle et al. 2021)."""


class Search(Section):
    """How many trials, which configurations, and what they are judged by."""

    trials: Annotated[int, Field(ge=2)] | Literal["all"]
    """TOTAL of trials, the dense base included; `all` = every feasible point of the space."""
    sampler: Sampler = "auto"
    """Optuna's, by name; `grid` is in the order of the space, `auto` picks (README)."""
    seed: Annotated[int, Field(ge=0)] = 0
    early_stopping: EarlyStopping | None = None
    """By default every candidate is trained to the end."""
    confirm: Confirm | None = None
    """What follows the search."""
    replicates: Annotated[int, Field(ge=1)] = 1
    """Seeds per trial: `seed`, `seed + 1`, ...; the same for base and candidates (paired)."""
    objectives: list[str] = Field(default=["val_error", "kept_macs"], min_length=1)
    """What the Pareto front is over, by default."""
    latency_runtime: Runtime = "torch"
    """What runs networks where `latency` is measured; only `c` leaves out their zeros."""
    networks: Literal["all", "front", "none"] = "all"
    """Which trained networks are kept for export: all; those of the base and of candidates that
    no other beats in all objectives; or none. Records are always kept."""
    grace_seconds: Annotated[float, Field(ge=2)] = 60.0
    """A trial is taken over when its worker has not been heard of for this long."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """A trial is written down after the first epoch that ends this long after the last time."""
