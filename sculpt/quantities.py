"""Every quantity that is measured of a network: one entry each, in the order of the table.

What follows from an entry: the objectives (`search.objectives`, `pareto`), the proxies of early
stopping and of `rank`, what is kept of a trial as attributes and as columns of `Results.trials`,
and what is kept of one that is stopped early. A quantity of one's own, in a plug-in, is one call of
`register`; one of ours is an entry here, and a field of `sculpt.record` that it is measured into.
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from statistics import mean
from typing import Any, Literal

from sculpt.registry import OBJECTIVES, QUANTITIES

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Quantity:
    """A measured quantity. Values are in the unit given, never scaled."""

    name: str
    unit: str
    meaning: str
    source: Callable[[Any], Any] | None = None
    """Reads it off a trial's record (`sculpt.record.TrialRecord`), None where it was not measured;
    what is known before training also off one seed's (`SculptedRecord`). By default the field of
    its name."""
    _: KW_ONLY
    direction: Direction | None = None
    """Of what may be an objective: what is better."""
    before_training: bool = False
    """It is known, and written down of a trial that may be stopped, once a seed is pruned."""
    report_only: bool = False
    """It is shown, and nothing is ever chosen by it."""
    proxy: Direction | None = None
    """Of what may stop a candidate before it is trained: what promises a lower error."""
    scale: Callable[[float], float] | None = None
    """What of it is judged as a proxy, and correlated with the error."""
    stored: bool = True
    """It is an attribute of its trial; else only among the `objectives`, or a part of another."""
    column_unit: str = ""
    """Its unit where a table has room for more words."""

    @property
    def __wrapped__(self) -> object:
        """Where it was defined, for the registry."""
        return self.source or register

    def read(self, record: Any) -> Any:
        """Return its value in a record."""
        return self.source(record) if self.source else getattr(record, self.name)


def register(*quantities: Quantity) -> None:
    """Make quantities known by their names, and those with a direction objectives.

    Raises:
        ConfigError: another quantity has this name.
    """
    for quantity in quantities:
        QUANTITIES.register(quantity.name)(quantity)
        if quantity.direction:
            OBJECTIVES.register(quantity.name)(quantity)


def _distance_from_isometry(jacobian_mean: float) -> float:
    """Return |ln mean|: isometry is at 1 (Lee et al. 2020, §5), in either direction."""
    return abs(math.log(jacobian_mean)) if jacobian_mean else math.inf


CONNECTION = (
    Quantity(
        "effective_nodes", "channels", "channels on a path from input to output", proxy="maximize"
    ),
    Quantity(
        "effective_parameters",
        "parameters",
        "kept weights on a path from input to output",
        proxy="maximize",
    ),
    Quantity(
        "log10_paths",
        "log10",
        "paths from input to output; missing where there is none",
        proxy="maximize",
    ),
)
ISOMETRY = (
    Quantity(
        "orthogonality_score",
        "1",
        "mean over the layers of ‖WWᵀ − I‖; 0 is isometry",
        proxy="minimize",
    ),
    Quantity(
        "jacobian_mean",
        "1",
        "mean singular value of the input-output Jacobian",
        lambda signal: signal.jacobian.mean if signal.jacobian else None,
        proxy="minimize",
        scale=_distance_from_isometry,
    ),
)
SIGNALS = {quantity.name: quantity for quantity in CONNECTION + ISOMETRY}
"""Read off `sculpt.record.Signal`, at each step before training; as proxies after the last one."""

MILESTONES = {
    "initial": "as initialised",
    "pruned": "after pruning",
    "repaired": "after the repair of isometry",
}
"""Steps before training at which the propagation of signals is measured."""

register(
    Quantity("budget", "parameters", "how many it was to keep"),
    Quantity("counting", "", "rule by which parameters are counted: paper or total"),
    Quantity("dense_parameters", "parameters", "of the dense network", before_training=True),
    Quantity("kept_parameters", "parameters", "that pruning kept", before_training=True),
    Quantity("unspent", "parameters", "of the budget that whole groups left over"),
    Quantity("sparsity", "fraction", "removed of the dense network"),
    Quantity(
        "dense_macs",
        "MACs per image",
        "multiply-accumulates of the dense network",
        before_training=True,
    ),
    Quantity(
        "kept_macs",
        "macs",
        "multiply-accumulates of the kept weights",
        direction="minimize",
        before_training=True,
        column_unit="MACs per image",
    ),
    # As `sculpt check` estimates it: weights with their copies, and a batch's activations, in
    # float32; nothing is saved by zeros.
    Quantity(
        "dense_memory",
        "bytes",
        "that training the dense network takes",
        direction="minimize",
        before_training=True,
    ),
    Quantity(
        "score_kept",
        "",
        "sum of the criterion's scores that the mask keeps",
        before_training=True,
        proxy="maximize",
    ),
    Quantity(
        "score_share",
        "fraction",
        "of all scores that the mask keeps",
        before_training=True,
        proxy="maximize",
    ),
    Quantity(
        "val_error_mean",
        "fraction",
        "validation error, mean over the seeds",
        lambda record: record.val_error.mean,
    ),
    Quantity(
        "val_error_std",
        "fraction",
        "its standard deviation; missing for one seed",
        lambda record: record.val_error.std,
    ),
    Quantity("val_error_n", "seeds", "over how many", lambda record: record.val_error.n),
    Quantity("val_errors", "fractions", "of each seed, as a list"),
    Quantity("test_errors", "fractions", "of each seed, as a list; None where they were not read"),
    Quantity("diverged", "seeds", "whose loss did not stay finite"),
    Quantity(
        "effective_parameters",
        "weights",
        "Kept weights on a path from input to output, as training finds them, mean over the seeds.",
        lambda record: mean(
            seed.final_signal.effective_parameters for seed in getattr(record, "runs", [record])
        ),
        direction="maximize",
        before_training=True,
        stored=False,
    ),
    # On one thread of the CPU of the machine that ran the trial, by `search.latency_runtime`, so a
    # front over it depends on the machine. Measured in studies that name it in
    # `search.objectives`, afterwards by `sculpt latency`, and None elsewhere.
    Quantity(
        "latency",
        "seconds",
        "Seconds for one image of the compacted, exported network, mean over the trial's seeds.",
        direction="minimize",
    ),
    Quantity(
        "macs",
        "macs",
        "Multiply-accumulates of the network, zeros included, for one image.",
        lambda record: record.dense_macs,
        direction="minimize",
        before_training=True,
        stored=False,
    ),
    Quantity(
        "parameters",
        "parameters",
        "Kept parameters under the study's counting rule.",
        lambda record: record.kept_parameters,
        direction="minimize",
        before_training=True,
        stored=False,
    ),
    # None where a seed did not read the test images: they are for what has been chosen already.
    Quantity(
        "test_error",
        "fraction",
        "Share of test images classified wrongly, mean over the trial's seeds.",
        lambda record: None if None in record.test_errors else mean(record.test_errors),
        direction="minimize",
        report_only=True,
        stored=False,
    ),
    Quantity(
        "training_seconds",
        "seconds",
        "Wall-clock seconds of training, mean over the trial's seeds.",
        direction="minimize",
    ),
    Quantity(
        "val_error",
        "fraction",
        "Share of validation images classified wrongly, mean over the trial's seeds.",
        lambda record: record.val_error.mean,
        direction="minimize",
        stored=False,
    ),
)
TOTALS = (
    Quantity("epochs", "epochs", "trained, all seeds together"),
    Quantity("seconds", "s", "of the whole trial; of a stopped one, of its last attempt"),
    Quantity("latency_by", "", "what measured the latency: runtime, images, threads, processor"),
)
"""At the end of the table."""

WORST = 1e308
"""Of a proxy without a value. Finite, because not every storage takes an infinity."""


def stored() -> list[Quantity]:
    """Return the quantities that are attributes of a finished trial."""
    return [quantity for quantity in (*QUANTITIES.entries(), *TOTALS) if quantity.stored]


def proxies() -> dict[str, Quantity]:
    """Return what may stop a candidate before it is trained, by name."""
    known = {q.name: q for q in QUANTITIES.entries() if q.proxy}
    return SIGNALS | known


def badness(name: str, record: Any) -> float:
    """Return a proxy in one seed's record, signed so that lower is better; missing is worst."""
    quantity = proxies()[name]
    value = quantity.read(record.final_signal if name in SIGNALS else record)
    if value is None:
        return WORST
    value = quantity.scale(value) if quantity.scale else value
    return min(value if quantity.proxy == "minimize" else -value, WORST)
