"""What stands in the columns of a study's table: units and meanings, in the order of the table."""

from collections.abc import Iterable
from dataclasses import dataclass

from sculpt.registry import OBJECTIVES

STEPS = {
    "initial": "as initialised",
    "pruned": "after pruning",
    "repaired": "after the repair of isometry",
}
"""Steps before training at which the propagation of signals is measured."""


@dataclass(frozen=True)
class Column:
    """A column of `Results.trials`."""

    name: str
    unit: str
    meaning: str


_QUANTITIES = (
    Column("jacobian_mean", "1", "mean singular value of the input-output Jacobian"),
    Column("orthogonality_score", "1", "mean over the layers of ‖WWᵀ − I‖; 0 is isometry"),
    Column("effective_nodes", "channels", "channels on a path from input to output"),
    Column("effective_parameters", "parameters", "kept weights on a path from input to output"),
    Column("log10_paths", "log10", "paths from input to output; missing where there is none"),
)

_BEFORE_ERRORS = (
    Column("study", "", "name of the study"),
    Column("trial", "", "number of a candidate, or base"),
    Column(
        "state",
        "",
        "complete, stopped, failed, interrupted (run again as another trial), infeasible, running "
        "or queued",
    ),
    Column("role", "", "base or candidate"),
)
_AFTER_PARAMETERS = (
    Column("budget", "parameters", "how many it was to keep"),
    Column("counting", "", "rule by which parameters are counted: paper or total"),
    Column("dense_parameters", "parameters", "of the dense network"),
    Column("kept_parameters", "parameters", "that pruning kept"),
    Column("unspent", "parameters", "of the budget that whole groups left over"),
    Column("sparsity", "fraction", "removed of the dense network"),
    Column("dense_macs", "MACs per image", "multiply-accumulates of the dense network"),
    Column("kept_macs", "MACs per image", "multiply-accumulates of the kept weights"),
    Column("dense_memory", "bytes", "that training the dense network takes"),
    Column("score_kept", "", "sum of the criterion's scores that the mask keeps"),
    Column("score_share", "fraction", "of all scores that the mask keeps"),
    Column("val_error_mean", "fraction", "validation error, mean over the seeds"),
    Column("val_error_std", "fraction", "its standard deviation; missing for one seed"),
    Column("val_error_n", "seeds", "over how many"),
    Column("val_errors", "fractions", "of each seed, as a list"),
    Column("test_errors", "fractions", "of each seed, as a list; None where they were not read"),
    Column("diverged", "seeds", "whose loss did not stay finite"),
)
_LAST = (
    Column("epochs", "epochs", "trained, all seeds together"),
    Column("seconds", "s", "of the whole trial; of a stopped one, of its last attempt"),
    Column("training_seconds", "s", "of training, mean over the seeds"),
    Column("latency_by", "", "what measured the latency: runtime, images, threads, processor"),
    Column(
        "rungs",
        "fraction by epoch",
        "validation error of the first seed at each look of early stopping",
    ),
    Column("judged_proxy", "", "what early stopping judged it by before training; lower is better"),
    Column(
        "judged_costs", "", "what early stopping judged it by beside the error; lower is better"
    ),
    Column(
        "stopped_at", "epochs", "of the first seed, after which it was stopped; 0 before training"
    ),
    Column("error", "", "why it was stopped, failed or is infeasible"),
)


def describe_column(name: str) -> Column:
    """Return unit and meaning of a column of `Results.trials`; empty if nobody documents it."""
    known = _known()
    if name.startswith("params."):
        return Column(name, "", f"sampled value of {name.removeprefix('params.')}")
    return known.get(name, Column(name, "", ""))


def in_order(names: Iterable[str]) -> list[str]:
    """Return columns in the order of this file; those it does not know stand before the error."""
    names = list(names)
    known = list(_known())
    place = {name: position for position, name in enumerate(known)}
    after_role, last = place["role"] + 0.5, place["error"] - 0.5
    return sorted(
        names,
        key=lambda name: place.get(name, after_role if name.startswith("params.") else last),
    )


def _known() -> dict[str, Column]:
    """Return every documented column by name, in the table's order."""
    objectives = (
        Column(name, OBJECTIVES.get(name).unit, (OBJECTIVES.get(name).__doc__ or "").split("\n")[0])
        for name in OBJECTIVES.names()
    )
    signals = (
        Column(f"{step}_{quantity.name}", quantity.unit, f"{quantity.meaning}, {when}")
        for step, when in STEPS.items()
        for quantity in _QUANTITIES
    )
    known: dict[str, Column] = {}
    for column in (*_BEFORE_ERRORS, *_AFTER_PARAMETERS, *objectives, *signals, *_LAST):
        known.setdefault(column.name, column)  # an objective may be a column already
    return known
