"""All measured quantities of a network: one entry each, in the order of the table.

An entry defines objectives (`search.objectives`, `pareto`), proxies of early stopping and of
`rank`, attributes of trials (also of those stopped early), and columns of `Results.trials`. A
plug-in adds a quantity by one call of `register`; the package by an entry here, and a field of
`sculpt.record` for its measurement.
"""

import math
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from statistics import mean
from typing import Any, Literal

from sculpt.registry import OBJECTIVES, QUANTITIES
from sculpt.units import ERROR, Metric

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Quantity:
    """A measured quantity. Values are in the unit given, never scaled."""

    name: str
    unit: str
    meaning: str
    source: Callable[[Any], Any] | None = None
    """Reads it from a trial's record (`sculpt.record.TrialRecord`), None if not measured; one known
    before training also from a seed's (`SculptedRecord`). By default the field of its name."""
    _: KW_ONLY
    direction: Direction | None = None
    """The better direction of an objective; None for other quantities."""
    before_training: bool = False
    """Whether it is known once a seed is pruned, and so also kept of stopped trials."""
    report_only: bool = False
    """Whether it is only shown, and never chosen by."""
    proxy: Direction | None = None
    """The direction that promises a lower error, if it may stop a candidate before training."""
    scale: Callable[[float], float] | None = None
    """Transformation for judging it as a proxy and correlating it with the error."""
    stored: bool = True
    """Whether it is an attribute of its trial of its own."""
    column_unit: str = ""
    """A longer unit for columns of tables."""

    @property
    def __wrapped__(self) -> object:
        """Origin of the definition, for the registry."""
        return self.source or register

    def read(self, record: Any) -> Any:
        """Read its value from a record."""
        return self.source(record) if self.source else getattr(record, self.name)


def register(*quantities: Quantity) -> None:
    """Register quantities, and those with a direction also as objectives.

    Raises:
        ConfigError: another quantity has this name.
    """
    for quantity in quantities:
        QUANTITIES.register(quantity.name)(quantity)
        if quantity.direction:
            OBJECTIVES.register(quantity.name)(quantity)


def _distance_from_isometry(jacobian_mean: float) -> float:
    """Compute |ln mean|: isometry is at mean 1 (Lee et al. 2020, §5)."""
    return abs(math.log(jacobian_mean)) if jacobian_mean else math.inf


known_early = partial(Quantity, before_training=True)
objective = partial(Quantity, direction="minimize")
cost = partial(Quantity, direction="minimize", before_training=True)
promise = partial(Quantity, proxy="maximize")

CONNECTION = (
    promise("effective_nodes", "channels", "channels on a path from input to output"),
    promise("effective_parameters", "parameters", "kept weights on a path from input to output"),
    promise("log10_paths", "log10", "paths from input to output; missing where there is none"),
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
"""Fields of `sculpt.record.Signal` at each milestone; as proxies at the last one."""

MILESTONES = {
    "initial": "as initialised",
    "pruned": "after pruning",
    "repaired": "after the repair of isometry",
}
"""Milestones before training at which signal propagation is measured."""

register(
    Quantity("budget", "parameters", "how many it was to keep"),
    Quantity("counting", "", "rule by which parameters are counted: paper or total"),
    known_early("dense_parameters", "parameters", "of the dense network"),
    known_early("kept_parameters", "parameters", "that pruning kept"),
    Quantity("unspent", "parameters", "of the budget that whole groups left over"),
    Quantity("sparsity", "fraction", "removed of the dense network"),
    known_early("dense_macs", "MACs per image", "multiply-accumulates of the dense network"),
    cost(
        "kept_macs",
        "macs",
        "multiply-accumulates of the kept weights",
        column_unit="MACs per image",
    ),
    # The estimate of `sculpt check`: weights with their copies, and a batch's activations, in
    # float32, zeros included.
    cost("dense_memory", "bytes", "that training the dense network takes"),
    known_early(
        "score_kept", "", "sum of the criterion's scores that the mask keeps", proxy="maximize"
    ),
    known_early("score_share", "fraction", "of all scores that the mask keeps", proxy="maximize"),
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
    # On one CPU thread of the machine that ran the trial, by `search.latency_runtime`, so a front
    # over it depends on the machine. Measured if `search.objectives` names it, or afterwards by
    # `sculpt latency`; else None.
    objective(
        "latency",
        "seconds",
        "Seconds for one image of the compacted, exported network, mean over the trial's seeds.",
    ),
    cost(
        "macs",
        "macs",
        "Multiply-accumulates of the network, zeros included, for one image.",
        lambda record: record.dense_macs,
        stored=False,
    ),
    cost(
        "parameters",
        "parameters",
        "Kept parameters under the study's counting rule.",
        lambda record: record.kept_parameters,
        stored=False,
    ),
    # None if a seed did not read the test images, which are for networks chosen already.
    objective(
        "test_error",
        "fraction",
        "Share of test images classified wrongly, mean over the trial's seeds.",
        lambda record: None if None in record.test_errors else mean(record.test_errors),
        report_only=True,
        stored=False,
    ),
    objective(
        "training_seconds",
        "seconds",
        "Wall-clock seconds of training, mean over the trial's seeds.",
    ),
    objective(
        "val_error",
        "fraction",
        "Share of validation images classified wrongly, mean over the trial's seeds.",
        lambda record: record.val_error.mean,
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
"""Badness of a proxy without a value; finite, because not every storage takes infinity."""


def of_metric(quantity: Quantity, metric: Metric) -> Quantity:
    """Return a quantity with the unit and meaning that it has under a study's metric.

    The quantities of errors, which are fractions elsewhere, keep their names.
    """
    wrong = re.search("error|rungs", quantity.name) and "fraction" in quantity.unit
    if metric == ERROR or not wrong:
        return quantity
    meaning = re.sub(
        r"Share of (\w+) images classified wrongly", rf"{metric.name} on \1 data", quantity.meaning
    )
    return replace(
        quantity,
        unit=re.sub("fractions?", metric.name, quantity.unit),
        meaning=re.sub(r"\berror\b", metric.name, meaning),
    )


def stored() -> list[Quantity]:
    """List the quantities that are attributes of a finished trial."""
    return [quantity for quantity in (*QUANTITIES.entries(), *TOTALS) if quantity.stored]


def proxies() -> dict[str, Quantity]:
    """List the quantities that may stop a candidate before training, by name."""
    known = {q.name: q for q in QUANTITIES.entries() if q.proxy}
    return SIGNALS | known


def badness(name: str, record: Any) -> float:
    """Read a proxy from one seed's record, signed so that lower is better; missing is worst."""
    quantity = proxies()[name]
    value = quantity.read(record.final_signal if name in SIGNALS else record)
    if value is None:
        return WORST
    value = quantity.scale(value) if quantity.scale else value
    return min(value if quantity.proxy == "minimize" else -value, WORST)
