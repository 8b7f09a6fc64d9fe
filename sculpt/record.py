"""What is recorded of a trial, typed; `sculpt.typed_json` writes it as JSON and reads it back.

README, "JSON", has the document of `sculpt show`, whose keys are the fields here. Errors are
fractions, losses in nats, times in seconds, MACs and parameters counts for one image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

RECORD_FORMAT = 1

Role = Literal["base", "candidate"]
"""A base stays dense; a candidate is pruned and, if asked for, repaired."""

Milestone = Literal["initial", "pruned", "repaired"]
"""A network as initialised, after pruning, after the repair of isometry."""


@dataclass(frozen=True)
class JacobianSpectrum:
    """Singular values pooled over images (METHOD: mean, std, condition of the pool)."""

    mean: float
    std: float
    """Of the pool as it is, not of a population behind it: 0 for one value."""
    min: float
    max: float
    condition: float | None
    """max / min; None where min is 0."""
    images: int


@dataclass(frozen=True, kw_only=True)
class Signal:
    """How signals travel through a network at one step."""

    orthogonality_score: float
    """Mean over the layers of ‖WWᵀ − I‖_F."""
    effective_nodes: int
    """Channels on a path from input to output."""
    effective_parameters: int
    """Kept weights on a path."""
    log10_paths: float | None
    """None where there is no path."""
    jacobian: JacobianSpectrum | None
    """None where no images are looked at."""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """What is left of one weight, what it costs, and its isometry around the repair."""

    name: str
    """Of the parameter."""
    shape: list[int]
    kept: int
    """Weights."""
    density: float
    kept_macs: int
    effective_channels: int
    """Outputs of the layer that lie on a path."""
    orthogonality_before: float
    """‖WWᵀ − I‖_F after pruning, before the repair."""
    orthogonality_after: float
    orthogonality_bound: float
    """The smallest that any weights have under this mask."""
    repair_steps: int
    repair_seconds: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Parameters under the study's counting rule; of a trial those of its first seed."""

    dense_parameters: int
    kept_parameters: int
    unspent: int
    """Of the budget that whole groups left over."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a network costs and keeps; of a trial the mean of its seeds, None if one has none."""

    dense_macs: int
    kept_macs: int | float
    dense_memory: int | float | None
    """Bytes that training the dense network takes, see `training_memory`."""
    score_kept: float | None
    """Sum of the criterion's scores that the masks keep, before any price. None of the base, which
    is not scored, and where it is not finite."""
    score_share: float | None
    """Its share of all scores, from 0 to 1 where none is negative."""


@dataclass(frozen=True, kw_only=True)
class SculptedRecord(Costs, Sizes):
    """One seed before it is trained."""

    seed: int
    collapsed_layers: list[str]
    """Weights that are pruned completely."""
    signal: dict[Milestone, Signal]
    """At each step that the network went through, in their order."""
    layers: list[LayerRow]
    """In the order of execution."""
    seconds: dict[str, float]
    """By phase."""

    @property
    def final_signal(self) -> Signal:
        """How signals travel as training finds the network."""
        return list(self.signal.values())[-1]


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """How a training was computed."""

    precision: str
    engine: Mapping[str, object] | None = None
    """What was chosen and why, see `choose_engine`; None where no epoch was trained since it went
    on."""
    micro_batches: int | None = None
    """Parts of a batch; None without training."""
    offload: bool | None = None
    resumed_at: list[int]
    """Epochs after which it went on from a checkpoint."""


@dataclass(frozen=True)
class Epoch:
    """What an evaluated pass over the training set gave. Losses in nats, errors as fractions."""

    epoch: int
    """Counted from 1; 0 is a network that was not trained."""
    learning_rate: float
    """At the last step."""
    train_loss: float | None
    """Mean over the pass, augmented images, weights changing meanwhile; None without a pass, or
    where it is not finite."""
    train_error: float | None
    val_loss: float | None
    """None where it is not finite."""
    val_error: float
    test_error: float | None
    """None unless the study's protocol reads the test images while training."""
    seconds: float
    """Training and evaluation, since the epoch before in the history."""
    images_per_second: float | None
    """Training alone."""


@dataclass(frozen=True, kw_only=True)
class SeedRecord(SculptedRecord):
    """One seed, trained. Losses and errors are those of the last epoch, never of the best."""

    training: TrainingFacts
    diverged: bool
    """A loss was not finite, and training ended there."""
    val_error: float
    val_loss: float | None
    """None where it is not finite, as `train_loss`."""
    test_error: float | None
    """The lowest of the evaluations, or (protocol `validation`) read once, after the training of
    what confirms; None where the test images were not read."""
    train_loss: float | None
    history: list[Epoch]
    """Evaluated epochs."""
    compaction: Mapping[str, object] | None
    """Whether and how it was trained compact, see `compact_where_it_pays`; None of the base."""
    latency: float | None
    """Of the exported network; None where it was not measured."""
    latency_by: str | None = None
    """How, see `describe_latency`."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Errors of several seeds in one; std is None of one seed."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Input:
    """What networks are fed: (pixel / 255 - mean) / std of each channel, exactly, in float32."""

    channels: int
    height: int
    width: int
    classes: int
    mean: list[float]
    std: list[float]
    class_names: list[str] | None


@dataclass(frozen=True, kw_only=True)
class Device:
    """What computed."""

    type: str
    name: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Which trial it is, and what it was to train and to keep."""

    trial: int | str
    """Number of a candidate, or `base`; of the confirmation its label."""
    objectives: dict[str, float]
    """Each one that was measured."""
    confirms: int | str | None = None
    """Of the confirmation: which trial was trained again."""
    arm: str | None = None
    """`sculpted` or `shuffled`."""
    format: int
    study: str
    role: Role
    params: dict[str, Any]
    """Those that were sampled."""
    counting: Literal["paper", "total"]
    budget: int


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Costs, Sizes, Tried):
    """A finished trial."""

    sparsity: float
    latency: float | None
    """Mean of the seeds, or measured afterwards."""
    latency_by: str | None
    val_error: Spread
    val_errors: list[float]
    test_errors: list[float | None]
    diverged: int
    """Seeds."""
    epochs: int
    """Trained, all seeds together."""
    seconds: float
    """Of all seeds together."""
    training_seconds: float
    """Of training alone, mean over the seeds."""
    seeds: list[int]
    layers: list[LayerRow]
    """Of the first seed, as `signal` and `compaction`."""
    signal: dict[Milestone, Signal]
    compaction: Mapping[str, object] | None
    runs: list[SeedRecord]
    config: dict[str, Any]
    """The study, with the sampled parameters in place."""
    input: Input
    data_fingerprint: str
    device: Device
    versions: dict[str, str]
    """Of Python, PyTorch (which build, too) and other packages."""
