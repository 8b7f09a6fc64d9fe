"""The typed record of a trial; `sculpt.typed_json` writes it as JSON and reads it back.

docs/reference/json.md has the document of `sculpt show`, whose keys are the fields here. Errors are
fractions, losses in nats, times in seconds, MACs and parameters counts for one image. In another
task than classification the errors are the study's metric, and the losses its loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

RECORD_FORMAT = 1

Role = Literal["base", "candidate", "opponent"]
"""A base stays dense; a candidate is pruned and, if the study says so, repaired; an opponent is as
its arm says."""

Milestone = Literal["initial", "pruned", "repaired"]
"""A network as initialised, after pruning, after the repair of isometry."""


@dataclass(frozen=True)
class JacobianSpectrum:
    """Singular values pooled over images."""

    mean: float
    std: float
    """Population standard deviation: 0 for one value."""
    min: float
    max: float
    condition: float | None
    """max / min; None where min is 0."""
    images: int


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Signal propagation of a network at one milestone."""

    orthogonality_score: float
    """Mean over the layers of ‖WWᵀ − I‖_F."""
    effective_nodes: int
    """Channels on a path from input to output."""
    effective_parameters: int
    """Kept weights on a path."""
    log10_paths: float | None
    """None without a path."""
    jacobian: JacobianSpectrum | None
    """None if no images are used."""


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """Kept part and cost of one weight, and its isometry before and after the repair."""

    name: str
    """Name of the parameter."""
    shape: list[int]
    kept: int
    """Number of kept weights."""
    density: float
    kept_macs: int
    effective_channels: int
    """Outputs of the layer on a path."""
    orthogonality_before: float
    """‖WWᵀ − I‖_F after pruning, before the repair."""
    orthogonality_after: float
    orthogonality_bound: float
    """Smallest value of any weights under this mask."""
    repair_steps: int
    repair_seconds: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Parameters under the study's counting rule; for a trial those of its first seed."""

    dense_parameters: int
    kept_parameters: int
    unspent: int
    """Part of the budget that whole groups left unspent."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs and kept scores; for a trial averaged over the seeds, None if any seed lacks it."""

    dense_macs: int
    kept_macs: int | float
    dense_memory: int | float | None
    """Bytes of training the dense network, see `training_memory`."""
    score_kept: float | None
    """Sum of the criterion's scores that the masks keep, before `mac_exponent`. None for the base,
    which has no scores, and if it is not finite."""
    score_share: float | None
    """Its share of all scores, from 0 to 1 if none is negative."""


@dataclass(frozen=True)
class Epoch:
    """An evaluated pass over the training set. Losses in nats, errors as fractions."""

    epoch: int
    """Counted from 1; 0 is an untrained network."""
    learning_rate: float
    """Learning rate of the last step."""
    train_loss: float | None
    """Mean over the pass on augmented images and changing weights; None without a pass, or if not
    finite."""
    train_error: float | None
    """None without a pass, or if the metric is not the classification error."""
    val_loss: float | None
    """None if not finite."""
    val_error: float
    test_error: float | None
    """None unless the study's protocol reads the test images while training."""
    seconds: float
    """Training and evaluation since the previous entry of the history."""
    images_per_second: float | None
    """Images per second of training alone."""


@dataclass(frozen=True, kw_only=True)
class FirstTraining:
    """Dense training before a network was pruned."""

    epochs: int
    seconds: float
    history: list[Epoch]
    """Evaluated epochs."""


@dataclass(frozen=True, kw_only=True)
class SculptedRecord(Costs, Sizes):
    """One seed before training."""

    seed: int
    collapsed_layers: list[str]
    """Weights that are pruned completely."""
    signal: dict[Milestone, Signal]
    """At each milestone of the network, in order."""
    layers: list[LayerRow]
    """In the order of execution."""
    seconds: dict[str, float]
    """Seconds by phase."""
    first_training: FirstTraining | None = None
    """None where the network was pruned before any training."""
    unspent_macs: int | None = None
    """Multiply-accumulates of the budget that are left; None where it limits none."""

    @property
    def final_signal(self) -> Signal:
        """Signal propagation at the start of training."""
        return list(self.signal.values())[-1]


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """How a training was computed."""

    precision: str
    engine: Mapping[str, object] | None = None
    """The engine of the last epoch and its reason, see `choose_engine`."""
    micro_batches: int | None = None
    """Parts of a batch; None without training."""
    offload: bool | None = None
    resumed_at: list[int]
    """Epochs after which training resumed from a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class MovedMasks:
    """How masks moved in training."""

    weights: int
    """Grown, or dropped by `gradual_magnitude`, in all moves."""
    kept_at_start: dict[str, int]
    """Kept weights of each layer before training."""
    still_kept: float
    """Share of the weights kept at the start that are kept in the end."""


@dataclass(frozen=True, kw_only=True)
class SeedRecord(SculptedRecord):
    """One trained seed. Losses and errors are those of the last epoch, never of the best.

    Sizes, costs and layers are those of the trained masks; signal, scores, and the isometry of
    layers those before training.
    """

    training: TrainingFacts
    diverged: bool
    """A loss was not finite, and training ended there."""
    val_error: float
    val_loss: float | None
    """None if not finite, as `train_loss`."""
    test_error: float | None
    """Lowest of the evaluations, or (protocol `validation`) measured once, after training in a
    confirmation; None if the test images were not read."""
    train_loss: float | None
    history: list[Epoch]
    """Evaluated epochs."""
    compaction: Mapping[str, object] | None
    """Whether and how it was trained compact, see `compact_where_it_pays`; None for the base."""
    latency: float | None
    """Seconds of the exported network; None if not measured."""
    latency_by: str | None = None
    """How it was measured, see `describe_latency`."""
    moved: MovedMasks | None = None
    """None where masks stayed as they were."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Errors over several seeds; std is None for one seed."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Input:
    """Input of the networks: (pixel / 255 - mean) / std of each channel, exactly, in float32."""

    channels: int
    height: int
    width: int
    classes: int
    mean: list[float]
    std: list[float]
    class_names: list[str] | None


@dataclass(frozen=True, kw_only=True)
class TensorInput:
    """Input of networks on other data than images with classes: (x - mean) / std of each channel.

    Images of 8 bits (`pixels`) are divided by 255 first, as in `Input`.
    """

    shape: list[int]
    """Shape of one input, channels (or features) first."""
    outputs: int
    """Numbers that a network returns for it."""
    targets: Literal["classes", "numbers"]
    pixels: bool
    mean: list[float]
    std: list[float]
    class_names: list[str] | None


@dataclass(frozen=True, kw_only=True)
class Device:
    """Device of the computation."""

    type: str
    name: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Tried:
    """Identity of a trial, and its configuration."""

    trial: int | str
    """Number of a candidate, `base`, or the label of an opponent or a trial of the confirmation."""
    objectives: dict[str, float]
    """Each measured objective."""
    confirms: int | str | None = None
    """In a confirmation: the retrained trial."""
    arm: str | None = None
    """In a confirmation `sculpted` or the control; of an opponent its kind."""
    format: int
    study: str
    role: Role
    params: dict[str, Any]
    """Sampled parameters."""
    counting: Literal["paper", "total"]
    budget: int


@dataclass(frozen=True, kw_only=True)
class TrialRecord(Costs, Sizes, Tried):
    """A finished trial."""

    sparsity: float
    latency: float | None
    """Mean over the seeds, or measured afterwards."""
    latency_by: str | None
    val_error: Spread
    val_errors: list[float]
    test_errors: list[float | None]
    diverged: int
    """Number of diverged seeds."""
    epochs: int
    """Epochs of all seeds together, those of a first training included."""
    seconds: float
    """Seconds of all seeds together."""
    training_seconds: float
    """Training alone, a first one included, mean over the seeds."""
    seeds: list[int]
    layers: list[LayerRow]
    """Layers of the first seed, as are `signal` and `compaction`."""
    signal: dict[Milestone, Signal]
    compaction: Mapping[str, object] | None
    runs: list[SeedRecord]
    config: dict[str, Any]
    """The study, with the sampled parameters in place."""
    input: Input | TensorInput
    data_fingerprint: str
    device: Device
    versions: dict[str, str]
    """Versions of Python, PyTorch (with its build) and other packages."""


def path_fault(path: str) -> str:
    """Return why a dotted path leads to nothing in a seed's record; empty if it may lead there.

    Lists are walked through: `layers.density` is one value for each layer.
    """
    kind: Any = SeedRecord
    for key in path.split("."):
        if kind is object:
            return ""  # of another part's making
        known: Mapping[str, Any] = {}
        if is_dataclass(kind):
            hints = get_type_hints(kind)
            known = {field.name: hints[field.name] for field in fields(kind)}
        elif get_origin(kind) in (dict, Mapping):
            keys, value = get_args(kind)
            known = dict.fromkeys(get_args(keys) or [key], value)
        if not known:
            return f"{key!r} goes on below a single value"
        if key not in known:
            return f"{key!r} is not among {', '.join(known)}"
        kind = known[key]
        while len(inner := [part for part in get_args(kind) if part is not NoneType]) == 1:
            (kind,) = inner  # of a list, or of what may be None
    return ""
