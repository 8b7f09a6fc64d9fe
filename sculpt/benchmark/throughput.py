"""Images per second of every phase of a study on this machine, and its predicted time."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import mean, median
from time import perf_counter
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from sculpt.arithmetic import float32_products
from sculpt.benchmark.prediction import keep_bench, study_seconds
from sculpt.benchmark.race import Effort, Opponent, Rates, race, standard_opponent
from sculpt.config import Params, Study, describe_parameters
from sculpt.data import ImageSet, ImageSpec, Spec, Splits
from sculpt.data.images import EVERYTHING
from sculpt.errors import InputError
from sculpt.measuring import Measuring
from sculpt.record import Role
from sculpt.search.images import describe_data, load_data, load_scoring_images
from sculpt.search.sampling.feasibility import check_candidate, total_trials
from sculpt.search.sampling.space import extremes
from sculpt.summary import describe_machine
from sculpt.training.loop import evaluations
from sculpt.training.loss_and_error import evaluate
from sculpt.training.precision import resolve_precision
from sculpt.trial import sculpt_network
from sculpt.trial_setup import (
    Sculpted,
    TrialSetup,
    candidate_budget,
    candidate_macs,
    resolve_budget,
)
from sculpt.typed_json import to_json

MOST_CANDIDATES = 8

SCORED = 512
"""Images for measuring the rate of scoring, which does not depend on their number."""


class Row(TypedDict):
    """Time of one phase of one network's trial (docs/reference/json.md)."""

    params: Params
    role: str
    phase: str
    images_per_second: float | None
    seconds: float
    ratio: NotRequired[float]


class MeasuredStudy(TypedDict):
    """The document of `sculpt bench` (docs/reference/json.md)."""

    study: str
    fingerprint: str
    device: Mapping[str, object]
    """As in a trial's record."""
    versions: dict[str, str]
    rows: list[Row]
    predicted: dict[str, Any]
    """`seconds`, `trials`, and `seconds_per_trial`, all its seeds, of `base` and `candidate`."""


def measure_study(
    config: Study,
    params: Params,
    device: torch.device,
    *,
    against_standard: bool,
    effort: Effort,
    on_network: Callable[[str], None],
) -> MeasuredStudy:
    """Measure the dense base and candidates of a study; see `sculpt.launch.bench`.

    Without `params`, which are one candidate, the feasible corners of the space are measured. The
    returned document is also saved, for `sculpt check`. InputError if the study cannot be run as it
    is, or no candidate holds the budget.
    """
    spec = describe_data(config)
    budget = resolve_budget(config, spec)
    trials = total_trials(config, spec)
    candidates = choose_candidates(config, params, spec)
    splits = load_data(config).to(device)
    if against_standard and not isinstance(spec, ImageSpec):
        raise InputError(
            "the standard loop trains on images with classes, but those of the study are other "
            "data; leave out --against-standard"
        )
    networks: list[tuple[Role, Params]] = [("base", {}), *(("candidate", p) for p in candidates)]
    rows: list[Row] = []
    seconds: dict[Role, list[float]] = {"base": [], "candidate": []}
    with standard_opponent() if against_standard else nullcontext() as opponent:
        for role, point in networks:
            on_network(describe_parameters(point) or "the base")
            measured, total = _measure_network(
                config, splits, budget, role, point, effort, opponent
            )
            rows += measured
            seconds[role].append(total)

    replicates = config.search.replicates
    per_trial = {str(role): replicates * mean(times) for role, times in seconds.items()}
    machine = to_json(describe_machine(device))
    document: MeasuredStudy = {
        "study": config.study,
        "fingerprint": config.fingerprint(),
        "device": machine["device"],
        "versions": machine["versions"],
        "rows": rows,
        "predicted": {
            "seconds": study_seconds(config, trials, per_trial),
            "trials": trials,
            "seconds_per_trial": per_trial,
        },
    }
    keep_bench(config, document)
    return document


def choose_candidates(config: Study, params: Params, spec: Spec) -> list[Params]:
    """Choose the points of the space to measure; InputError if none of them can hold the budget."""
    feasible, reason = [], None
    for point in [params] if params else extremes(config.space):
        found = check_candidate(config, config.with_parameters(point), spec).reason
        if found is None:
            feasible.append(point)
        reason = found or reason
    if not feasible:
        raise InputError(
            f"a measured candidate must hold the budget, but none does: {reason}; "
            "choose another with --set params.KEY=VALUE"
        )
    # Spread evenly, because the first ones differ in the last parameters alone.
    count = min(MOST_CANDIDATES, len(feasible))
    return [feasible[i * (len(feasible) - 1) // max(1, count - 1)] for i in range(count)]


def _measure_network(
    config: Study,
    splits: Splits,
    budget: int,
    role: Role,
    params: Params,
    effort: Effort,
    opponent: Opponent | None,
) -> tuple[list[Row], float]:
    """Measure a network's rows, and the seconds of its trial with one seed.

    `budget` is the base's; that of a candidate may be another.
    """
    study = config.with_parameters(params)
    recipe = study.training
    macs = None
    if role == "candidate":
        budget = candidate_budget(config, study, splits.spec)
        macs = candidate_macs(config, study, splits.spec)
    timed = _time_sculpting(study, splits, role, budget, macs, effort)
    sculpted, phases, scoring_rate = timed
    rates = race(sculpted.model, sculpted.masks, splits, recipe, effort, opponent)
    ours = median(rates.sculpt)
    batch_size = min(recipe.batch_size, len(splits.train))
    # In a whole run: every epoch without its unfinished batch.
    trained = recipe.epochs * (len(splits.train) // batch_size) * batch_size
    evaluated = len(splits.validation)
    if recipe.protocol == "lowest_test":
        evaluated += len(splits.test)
    evaluation_rate = _evaluation_rate(rates, splits, recipe.precision, effort)

    rows: list[Row] = []

    def add(phase: str, rate: float | None, seconds: float, who: str = role) -> float:
        found = Row(params=params, role=who, phase=phase, images_per_second=rate, seconds=seconds)
        rows.append(found)
        return seconds

    if "score" in phases:
        add("score", scoring_rate, phases["score"])
    if "repair" in phases:
        add("repair", None, phases["repair"])
    # All phases, also those without a row: building, initialising, masking, reading signals.
    total = sum(phases.values()) + rates.seconds_to_compact
    total += add("train", ours, trained / ours)
    total += add("evaluate", evaluation_rate, evaluations(recipe) * evaluated / evaluation_rate)
    if rates.standard:
        theirs = median(rates.standard)
        add("train", theirs, trained / theirs, "standard_loop")
        rows[-1]["ratio"] = rates.ratio
    return rows, total


@dataclass(frozen=True, eq=False)
class WatchedImages(ImageSet):
    """Images that record whether a criterion used them; some use none."""

    read: list[bool] = field(default_factory=list)
    """One entry for each time that images were read, also of samples."""

    def inputs(self, indices: Tensor | slice = EVERYTHING) -> Tensor:
        """Normalise the chosen images, as `ImageSet.inputs` does, and record it."""
        self.read.append(True)
        return ImageSet.inputs(self, indices)


def _time_sculpting(
    study: Study, splits: Splits, role: Role, budget: int, macs: int | None, effort: Effort
) -> tuple[Sculpted, dict[str, float], float | None]:
    """Time the phases of a trial before training; return the network, seconds and scoring rate.

    The rate is in images per second, None if the criterion uses no images.
    """
    images = load_scoring_images(study, splits)
    watched = WatchedImages(images.images, images.labels, images.mean, images.std, images.task)
    wanted = min(study.pruning.images or len(images), len(images))
    scored = min(SCORED, wanted)
    pruning = study.pruning.model_copy(update={"images": scored})
    short = study.model_copy(update={"pruning": pruning})
    setup = TrialSetup("bench", short, role, {}, budget, [study.search.seed], macs=macs)
    taken: list[dict[str, float]] = []
    start = perf_counter()
    # More than once if it is quick, because the first run warms up.
    while not taken or (len(taken) < effort.repeats and perf_counter() - start < effort.seconds):
        measuring = Measuring(setup, splits, study.search.seed)
        with float32_products("float32", images.device):  # as a trial does
            sculpted = sculpt_network(setup, splits, watched, measuring)
        taken.append(sculpted.record.seconds)
    phases = {phase: median(seconds[phase] for seconds in taken) for phase in taken[0]}
    if not watched.read:
        return sculpted, phases, None
    rate = scored / phases["score"]
    return sculpted, phases | {"score": wanted / rate}, rate


def _evaluation_rate(rates: Rates, splits: Splits, precision: str, effort: Effort) -> float:
    """Measure images per second in inference mode."""
    # A forward pass is about a third of a training step.
    worth = max(1, round(3 * median(rates.sculpt) * effort.seconds))
    images = splits.validation.sample(worth, seed=0)
    resolved = resolve_precision(precision, images.device)
    seconds = []
    for _ in range(effort.repeats + 1):
        start = perf_counter()
        with float32_products(resolved, images.device):
            evaluate(rates.trained, images, precision=resolved)  # waits for the device
        seconds.append(perf_counter() - start)
    return len(images) / median(seconds[1:])  # the first run warms up
