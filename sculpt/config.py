"""The schema of a study: what may stand in a study file, and what it means.

A study says what is trained (`data`, `model`, `training`), how candidates are pruned
(`pruning`, `budget`, `counting`), and what is searched (`space`, `search`).
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from sculpt.documents import assign
from sculpt.recipes import RECIPES

Fraction = Annotated[float, Field(gt=0, lt=1)]
Scalar = bool | int | float | str


class Section(BaseModel):
    """A part of a study file. Unknown keys and silent conversions are faults."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Choice(BaseModel):
    """A registered thing by name, with its own options beside the name."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options given; those left out take the defaults of the registered thing."""
        return dict(self.model_extra or {})

    @property
    def label(self) -> str:
        """The choice as one short text, for example `synflow(rounds=10)`."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


class Data(Choice):
    """Which images, and how they are split; further keys are options of the data set."""

    validation_fraction: Fraction = 0.1
    """Share of the training set held out for selection."""
    split_seed: Annotated[int, Field(ge=0)] = 0
    train_images: Annotated[int, Field(ge=2)] | None = None
    """Use a stratified subset of this many training images (validation included)."""


class Range(Section):
    """Numbers from `low` to `high`, both included; whole if both are whole."""

    low: int | float
    high: int | float
    step: Annotated[int | float, Field(gt=0)] | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low > self.high:
            raise ValueError("have low at most high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("have low > 0 and no step where log is true")
        return self

    @property
    def whole(self) -> bool:
        """Whether only integers are meant."""
        return all(isinstance(x, int) for x in (self.low, self.high, self.step or 0))


Dimension = Annotated[list[Scalar | Choice], Field(min_length=1)] | Range


class Space(Section):
    """What may be sampled: a key of the study, or a bare option of the model, to its values."""

    parameters: Annotated[dict[str, Dimension], Field(min_length=1)]
    """A value may be a whole choice, for example `pruning.criterion: [{name: synflow}, ...]`."""

    def values(self, key: str) -> dict[Scalar, Any]:
        """Return the listed values of a parameter by what trials call them; none of a range.

        Samplers and storages know plain values only, so a whole choice goes by its label.
        """
        dimension = self.parameters[key]
        if isinstance(dimension, Range):
            return {}
        return {
            value.label if isinstance(value, Choice) else value: (
                value.model_dump() if isinstance(value, Choice) else value
            )
            for value in dimension
        }


class Sparsity(Section):
    """A budget as a share: which fraction of a candidate's own dense network is removed."""

    sparsity: Fraction


class Pruning(Section):
    """How a candidate becomes sparse before training."""

    initializer: Choice = Choice(name="ldi")
    """Also initialises the dense base."""
    criterion: Choice = Choice(name="connection_sensitivity")
    repair: bool | Literal["frobenius", "spectral", "exact"] = True
    """Repair approximate isometry after pruning (Eq. 8), and how; `true` is `frobenius`."""
    batch_size: Annotated[int, Field(ge=1)] = 250
    """Images per scoring batch; with batch norm in mode `batch` it changes the scores."""
    images: Annotated[int, Field(ge=1)] | None = None
    """Score on this many training images, drawn anew for each seed; by default on all."""
    data: Data | None = None
    """Score on the training images of another data set, to see how sparsity transfers."""
    scope: Literal["global", "layer"] = "global"
    """Rank the whole network, or each layer for itself at one density."""
    granularity: Literal["weight", "kernel", "channel"] = "weight"
    """What is kept or removed as a whole; `channel` leaves a dense network of uneven width."""
    mac_exponent: float = 0.0
    """p: scores are divided by (output height × width)^p before they are ranked."""
    effective: bool = False
    """Spend the budget only on weights that lie on a path from the input to the output."""


class Training(Section):
    """The recipe, shared by base and candidates."""

    recipe: Literal["paper_cifar10", "paper_mnist", "short"] | None = None
    """Gives the keys that are left out other values than the ones below (sculpt/recipes.py)."""
    epochs: Annotated[int, Field(ge=0)]
    """0 trains nothing: the study is about what can be read before training."""
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    protocol: Literal["validation", "lowest_test"] = "validation"
    """`validation` never reads the test images. `lowest_test` reports the lowest test error of
    all evaluations, as Lee et al. 2020 do: for comparing with published figures only."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["step", "one_cycle", "constant"] = "step"
    """`step`: divided by 10 at each quarter of the run, as in the paper."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Longer gradients (2-norm over all weights) are scaled down to this."""
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, which is what is evaluated
    and kept; 0 keeps the weights themselves. At first it forgets faster."""
    flip: bool = False
    translate: Annotated[int, Field(ge=0)] = 0
    """Random shifts by up to this many pixels."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Side of the square that is erased, in pixels; 0 = none."""
    precision: Literal["auto", "bfloat16", "tf32", "float32"] = "auto"
    """Of matrix products and convolutions; weights stay float32. `auto` is bfloat16 where the
    device computes with it natively, else float32. `tf32` exists on CUDA alone."""
    compact: bool = True
    """Train without the channels that no path uses, where that saves work; the same network."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_from_recipe(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        known = RECIPES.get(str(given.get("recipe")), {}) if isinstance(given, dict) else {}
        filled = validate(known | given if known else given)
        if known:
            # What the recipe gave stays unset, so that another recipe can take its place.
            filled.model_fields_set.intersection_update(given)
        return filled


class Diagnostics(Section):
    """What is read of a network's signal propagation before it is trained."""

    jacobian_images: Annotated[int, Field(ge=0)] | Literal["all"] = 8
    """Take the input-output Jacobian at this many training images; 0 leaves it out."""


class Published(Section):
    """Figures from elsewhere; `sculpt run` writes the measured ones beside them."""

    source: str
    figures: Annotated[list[str], Field(min_length=1)]
    """What is compared: dotted paths into the record of a seed, for example `test_error`."""
    rows: list[dict[str, Any]] = []
    """Each with `params` (as in the space; `base` for the dense base) and published figures."""


class Search(Section):
    """How many trials, which configurations, and what they are judged by."""

    trials: Annotated[int, Field(ge=2)] | Literal["all"]
    """TOTAL of trials, the dense base included; `all` = every feasible point of the space."""
    sampler: Literal["random"] = "random"
    """Uniform; without replacement where the space is finite."""
    seed: Annotated[int, Field(ge=0)] = 0
    replicates: Annotated[int, Field(ge=1)] = 1
    """Seeds per trial: `seed`, `seed + 1`, ...; the same for base and candidates (paired)."""
    objectives: Annotated[list[str], Field(min_length=1)] = ["val_error", "kept_macs"]
    """What the Pareto front is over, by default."""
    grace_seconds: Annotated[float, Field(ge=2)] = 60.0
    """A trial is taken over when its worker has not been heard of for this long."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """A trial is written down after the first epoch that ends this long after the last time."""


class Study(Section):
    """A whole study file."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    data: Data
    model: Choice
    """The dense base; a candidate overrides what the space names."""
    space: Space
    budget: Annotated[int, Field(ge=1)] | Literal["base"] | Sparsity = "base"
    """Parameters that a candidate keeps: a number, as many as the base, or a share."""
    counting: Literal["paper", "total"] = "paper"
    pruning: Pruning = Pruning()
    training: Training
    diagnostics: Diagnostics = Diagnostics()
    search: Search
    published: Published | None = None
    storage: str | None = None
    """SQLAlchemy URL or path of a .db file; by default `runs/<study>.db`."""
    plugins: list[str] = []
    """Modules to import first: they register criteria, data sets, ... of your own."""

    @property
    def storage_url(self) -> str:
        """Where the study is kept."""
        return self.storage or default_storage(self.study)

    def with_parameters(self, params: dict[str, Any]) -> "Study":
        """Return the study with sampled values in place, for example {"widening": 2}."""
        document = self.model_dump()
        document["training"] = self.training.model_dump(exclude_unset=True)
        for key, value in params.items():
            listed = self.space.values(key) if key in self.space.parameters else {}
            assign(document, parameter_path(key), listed.get(value, value))
        return Study.model_validate(document)

    def fingerprint(self) -> str:
        """Return a short hash of everything that a finished trial depends on."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """Return the settings that must not change while a study goes on.

        The total may grow, and the storage and the images may move (that they are the same
        images is checked by their fingerprint).
        """
        free: dict[str, Any] = {
            "data": {"root", "download"},
            "pruning": {"data": {"root", "download"}},
            "search": {"trials", "grace_seconds", "checkpoint_seconds"},
            "storage": True,
            "published": True,
        }
        return self.model_dump(mode="json", exclude=free)


def default_storage(study: str) -> str:
    """Return where a study is kept unless it says otherwise."""
    return f"sqlite:///runs/{study}.db"


def parameter_path(key: str) -> str:
    """Return where a space's key stands in the study: bare keys are options of the model."""
    return key if "." in key or key == "model" else f"model.{key}"


def describe_parameters(params: dict[str, Any]) -> str:
    """Return parameters as one short text for people."""
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in params.items())
