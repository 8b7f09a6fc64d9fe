"""The schema of a study file.

A study says what is trained (`data`, `model`, `training`), how candidates are pruned
(`pruning`, `budget`, `counting`), and what is searched (`space`, `search`).
"""

import copy
import hashlib
import json
import operator
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_serializer, model_validator

from sculpt.config.budgets import Budget
from sculpt.config.budgets import Macs as Macs
from sculpt.config.budgets import Sparsity as Sparsity
from sculpt.config.budgets import sample_budgets as sample_budgets
from sculpt.config.opponents import Opponent as Opponent
from sculpt.config.opponents import each_labelled_once
from sculpt.config.search import Confirm as Confirm
from sculpt.config.search import EarlyStopping as EarlyStopping
from sculpt.config.search import Search as Search
from sculpt.config.sections import Choice as Choice
from sculpt.config.sections import Count, Fraction, Seed
from sculpt.config.sections import Overrides as Overrides
from sculpt.config.sections import Params as Params
from sculpt.config.sections import Section as Section
from sculpt.config.sections import describe_parameters as describe_parameters
from sculpt.config.space import Constraints as Constraints
from sculpt.config.space import Range as Range
from sculpt.config.space import Space as Space
from sculpt.config.space import label as label
from sculpt.config.task import Task as Task
from sculpt.config.training import Moving as Moving
from sculpt.config.training import Training as Training
from sculpt.documents import Document, assign
from sculpt.registry import FROM_BUNDLE, REFERENCE


class Data(Choice):
    """The images and their splits; further keys are options of the data set."""

    validation_fraction: Fraction = 0.1
    """Share of the training set held out for selection."""
    split_seed: Seed = 0
    train_images: Annotated[int, Field(ge=2, le=10**9)] | None = None
    """Use a stratified subset of this many training images (validation included)."""


def _granularity(given: str) -> str:
    n, colon, m = given.partition(":")
    if given in ("weight", "kernel", "channel"):
        return given
    if not (colon and re.fullmatch("[1-9][0-9]?", n) and re.fullmatch("[1-9][0-9]?", m)):
        raise ValueError("be one of weight, kernel, channel, or N:M such as 2:4")
    if not int(n) < int(m) <= 32:
        raise ValueError("have N below M and M at most 32 in a pattern N:M")
    return given


Granularity = Annotated[str, AfterValidator(_granularity)]
WHOLE_MASKS = ("erk_random", "npb")
"""Criteria that choose a whole mask, and know of no pattern and no budgets but their own."""


class Pruning(Section):
    """How a candidate becomes sparse before training."""

    initializer: Choice = Choice(name="ldi")
    """Also initialises the dense base."""
    criterion: Choice = Choice(name="connection_sensitivity")
    """Scores the weights before training; those of the highest scores are kept."""
    repair: bool | Literal["frobenius", "spectral", "exact"] = True
    """Repair approximate isometry after pruning (Eq. 8), and how; `true` is `frobenius`."""
    redraw: Annotated[Literal[False] | Choice, Field(exclude_if=operator.not_)] = False
    """Initializer that draws the kept weights anew, between the mask and the repair, and the dense
    base; `false` keeps the values that were scored."""
    batch_size: Count = 250
    """Images per scoring batch; with batch norm in mode `batch` it changes the scores."""
    images: Count | None = None
    """Score on this many training images, drawn anew for each seed; by default on all."""
    data: Data | None = None
    """Score on the training images of another data set, to see how sparsity transfers."""
    scope: Literal["global", "layer"] = "global"
    """Rank the whole network, or each layer by itself at one density."""
    granularity: Granularity = "weight"
    """Unit that is kept or removed: `weight`, `kernel`, `channel` (which leaves a dense network of
    uneven width, in which a residual stream is equally wide everywhere), or at most N weights of
    every M consecutive inputs, such as `2:4`."""
    mac_exponent: Annotated[float, Field(ge=-4, le=4)] = 0.0
    """p: scores are divided by (output height × width)^p before they are ranked."""
    effective: bool = False
    """Spend the budget only on weights that lie on a path from the input to the output."""
    layer_budgets: Annotated[Literal["erk", "balanced"] | None, Field(exclude_if=operator.not_)] = (
        None
    )
    """Fix how many weights each layer keeps; scores choose within layers. In place of scope."""

    @property
    def pattern(self) -> bool:
        """Whether the granularity is a pattern N:M."""
        return ":" in self.granularity

    @property
    def repair_method(self) -> Literal["frobenius", "spectral", "exact"] | None:
        """Method of the isometry repair; None without one."""
        return "frobenius" if self.repair is True else self.repair or None


class Diagnostics(Section):
    """Readings of a network's signal propagation before training."""

    jacobian_images: Annotated[int, Field(ge=0, le=10**9)] | Literal["all"] = 8
    """Training images at which the input-output Jacobian is taken; 0 leaves it out."""


class Published(Section):
    """Figures from elsewhere; `sculpt run` writes the measured ones beside them."""

    source: str
    figures: Annotated[list[str], Field(min_length=1)]
    """Compared quantities: dotted paths into the record of a seed, for example `test_error`."""
    rows: list[dict[str, Any]] = Field(default=[])
    """Each with `params` (as in the space; `base` for the dense base) and published figures."""


def _no_file_name(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        raise ValueError("not end as the name of a study file does")
    return name


StudyName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100),
    AfterValidator(_no_file_name),
]


CLASSIFICATION = Task()


class Study(Section):
    """A whole study file."""

    study: StudyName
    """Its name, under which it is kept and found."""
    data: Data
    model: Choice
    """The dense base; a candidate overrides what the space names."""
    task: Annotated[Task, Field(exclude_if=lambda task: task == CLASSIFICATION)] = CLASSIFICATION
    """What networks learn; studies of classification do not name it."""
    space: Space
    budget: Budget = "base"
    """Parameters that a candidate keeps: a number, that of the base, or a share; or its MACs. A
    list of numbers and `base` becomes a parameter of the space, with a Pareto front for each."""
    counting: Literal["paper", "total"] = "paper"
    pruning: Pruning = Pruning()
    training: Training
    diagnostics: Diagnostics = Diagnostics()
    search: Search
    opponents: Annotated[
        list[Opponent], AfterValidator(each_labelled_once), Field(exclude_if=operator.not_)
    ] = Field(default=[])
    """Networks that are trained like the base, and ranked beside it."""
    published: Published | None = None
    storage: str | None = None
    """SQLAlchemy URL or path of a .db file; by default `runs/<study>.db`."""
    artifacts: Annotated[str, Field(min_length=1)] | None = None
    """Folder or URL of networks, records and checkpoints; by default beside the .db file."""
    plugins: list[str] = Field(default=[])
    """Modules to import first: they register criteria, data sets, ... of your own. Those of
    callables that the study names (`module:function`) are among them, named or not."""

    @model_validator(mode="before")
    @classmethod
    def _sample_budgets(cls, given: Any) -> Any:
        return sample_budgets(given)

    @model_validator(mode="before")
    @classmethod
    def _name_plugins(cls, given: Any) -> Any:
        named = named_plugins(given) if isinstance(given, dict) else []
        return given | {"plugins": named} if named else given

    @field_serializer("storage", when_used="json")
    def _without_password(self, storage: str | None) -> str | None:
        return storage if storage is None else without_password(storage)

    @property
    def storage_url(self) -> str:
        """URL or path of the study's storage."""
        return self.storage or default_storage(self.study)

    @property
    def counts_macs(self) -> bool:
        """Whether the budget is one of MACs alone."""
        return isinstance(self.budget, Macs) and self.budget.parameters is None

    def with_parameters(self, params: Params) -> "Study":
        """Set sampled values, for example {"widening": 2}."""
        return Study.model_validate(self.document_with(params))

    def document_with(self, params: Params) -> Document:
        """Make a new document of the study with sampled values set.

        Raises:
            ConfigError: a parameter has no place in the study.
        """
        document = self.model_dump()
        document["training"] = self.training.model_dump(exclude_unset=True)
        # Whole choices first: a later one would overwrite options already set in it.
        for key in sorted(params, key=lambda key: parameter_path(key).count(".")):
            listed = self.space.values(key) if key in self.space.parameters else {}
            value = listed.get(label(params[key]), params[key])
            assign(document, parameter_path(key), copy.deepcopy(value))
        return document

    def contradictions(self) -> dict[tuple[str, str], str]:
        """Find settings that are sound, but not together: pairs of keys to what is wrong."""
        found = {}
        pruning, training = self.pruning, self.training
        if pruning.granularity == "channel" and pruning.scope == "layer":
            found["pruning.granularity", "pruning.scope"] = (
                "pruning.granularity: must be 'weight' or 'kernel' where pruning.scope is 'layer' "
                "(removing a channel shrinks two layers), but got 'channel'; use scope 'global'"
            )
        if pruning.layer_budgets:
            for key, value, default in (
                ("scope", pruning.scope, "global"),
                ("mac_exponent", pruning.mac_exponent, 0),
                ("effective", pruning.effective, False),
            ):
                if value != default:
                    found["pruning.layer_budgets", f"pruning.{key}"] = (
                        f"pruning.{key}: must be {str(default).lower()} where pruning."
                        f"layer_budgets is {pruning.layer_budgets} (it fixes what each layer "
                        f"keeps), but got {str(value).lower()}; leave one of them out"
                    )
            if pruning.granularity == "channel":
                found["pruning.layer_budgets", "pruning.granularity"] = (
                    "pruning.layer_budgets: must be left out where pruning.granularity is channel "
                    "(removing one shrinks two layers), but got "
                    f"{pruning.layer_budgets}; choose another granularity"
                )
        if pruning.criterion.name in WHOLE_MASKS and (pruning.pattern or pruning.layer_budgets):
            key = "granularity" if pruning.pattern else "layer_budgets"
            found[f"pruning.{key}", "pruning.criterion"] = (
                f"pruning.{key}: must be left out where pruning.criterion is "
                f"{pruning.criterion.name}, which chooses a whole mask, but got "
                f"{pruning.granularity if pruning.pattern else pruning.layer_budgets}; choose a "
                "criterion that scores every weight, such as random"
            )
        if training.nesterov and training.optimizer == "adamw":
            found["training.nesterov", "training.optimizer"] = (
                "training.nesterov: must be false where training.optimizer is adamw, but got true; "
                "set it to false"
            )
        elif training.nesterov and not training.momentum:
            found["training.nesterov", "training.momentum"] = (
                "training.nesterov: must be false where training.momentum is 0, but got true; "
                "raise the momentum"
            )
        if pruning.redraw and pruning.redraw.name == FROM_BUNDLE:
            found["pruning.redraw", "pruning.redraw.name"] = (
                f"pruning.redraw: must draw weights, but {FROM_BUNDLE} takes them from a file; use "
                f"{FROM_BUNDLE} as pruning.initializer"
            )
        if training.warm_up and training.schedule == "one_cycle":
            found["training.warm_up", "training.schedule"] = (
                "training.warm_up: must be 0 where training.schedule is one_cycle, which has a "
                f"rise of its own, but got {training.warm_up}; set it to 0"
            )
        if training.moving.rule != "static" and pruning.granularity != "weight":
            found["pruning.granularity", "training.moving.rule"] = (
                "training.moving.rule: must be static where pruning.granularity is not weight "
                f"(single weights move), but got {training.moving.rule}; leave one of them out"
            )
        moving = training.moving
        keeps_macs = moving.rule == "static" or (
            moving.scope == "layer" and moving.rule != "gradual_magnitude"
        )
        if isinstance(self.budget, Macs) and not keeps_macs:
            found["budget", "training.moving.rule"] = (
                "training.moving.rule: must be static, or rigl or set with scope layer, where the "
                "budget is one of MACs (weights that move to another layer cost others), but got "
                f"{moving.rule} with scope {moving.scope}; choose another rule or budget"
            )
        if training.moving.rule == "gradual_magnitude" and not training.epochs:
            found["training.moving.rule", "training.epochs"] = (
                "training.moving.rule: must not be gradual_magnitude where training.epochs is 0 "
                "(it prunes while training), but is; choose another rule, or train"
            )
        if training.label_smoothing and self.task.loss != "cross_entropy":
            found["training.label_smoothing", "task.loss"] = (
                "training.label_smoothing: must be 0 where task.loss is not cross_entropy, but got "
                f"{training.label_smoothing} for {self.task.loss}; set it to 0"
            )
        if self.published and self.task.metric != "error":
            found["published", "task.metric"] = (
                "published: must be left out where task.metric is not error, because the figures "
                f"are classification errors, but got {self.task.metric}; leave it out"
            )
        return found

    def lasting_contradictions(self) -> list[str]:
        """List those of the base and of all candidates; others depend on what is sampled."""
        sampled = {parameter_path(key) for key in self.space.parameters}
        return [
            fault
            for keys, fault in self.contradictions().items()
            if keys[0].split(".")[0] in ("training", "published")
            or not sampled & {*keys, "pruning"}
        ]

    def fingerprint(self) -> str:
        """Hash everything that a finished trial depends on."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def identity(self) -> Document:
        """Collect the settings that must not change during a study.

        The total and the opponents may grow, and the storage, the artifacts and the images may move
        (a fingerprint checks that they are the same images).
        """
        document = self.model_dump(
            mode="json",
            exclude={
                "data": {"root", "download"},
                "pruning": {"data": {"root", "download"}},
                "search": {"trials", "confirm", "networks", "grace_seconds", "checkpoint_seconds"},
                "opponents": True,
                "storage": True,
                "artifacts": True,
                "published": True,
            },
        )
        # Plug-ins that opponents alone name come and go with them.
        own = named_plugins(document | {"plugins": []})
        theirs = named_plugins(self.model_dump(mode="json", include={"opponents"}))
        document["plugins"] = [p for p in self.plugins if p in own or p not in theirs]
        return document


def without_password(storage: str) -> str:
    """Drop the password in a URL, and its options, which may hold one."""
    if "://" not in storage or storage.startswith("sqlite"):
        return storage
    return re.sub(r"^([^:]+://[^:/@]*):.*@", r"\1@", storage.partition("?")[0])


def default_storage(study: str) -> str:
    """Give the default storage of a study."""
    return f"sqlite:///runs/{study}.db"


def parameter_path(key: str) -> str:
    """Find the place of a space's key in the study: bare keys are options of the model."""
    return key if key.split(".")[0] in Study.model_fields else f"model.{key}"


def named_plugins(document: Document) -> list[Any]:
    """List the plug-ins of a study document, those first that `plugins` names.

    The module of a callable that is named `module:function` is one, too: the factory of an imported
    network or data set, here or in the space, and the task's own loss and metric.
    """
    plugins = document.get("plugins")
    named: list[Any] = [*plugins] if isinstance(plugins, list) else []

    def find(part: Any, key: str) -> None:
        if isinstance(part, dict):
            for name, value in part.items():
                find(value, f"{name}")
        elif isinstance(part, list):
            for value in part:
                find(value, key)
        elif key.split(".")[-1] in ("factory", "loss", "metric") and isinstance(part, str):
            module, colon, _ = part.partition(":")
            if colon and re.fullmatch(REFERENCE, part) and module not in named:
                named.append(module)

    for section in ("model", "data", "pruning", "space", "task", "opponents"):
        find(document.get(section), section)
    return named
