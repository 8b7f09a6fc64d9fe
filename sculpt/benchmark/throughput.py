"""Images per second of every phase of a study on this machine, and what the study will take."""

from collections.abc import Callable
from contextlib import ExitStack
from statistics import mean
from typing import Any

from sculpt.benchmark.opponent import Opponent
from sculpt.benchmark.prediction import keep_bench, study_seconds
from sculpt.benchmark.stopwatch import Effort, Row, Stopwatch
from sculpt.config import Study, describe_parameters
from sculpt.data import ImageSpec
from sculpt.errors import InputError
from sculpt.record import Role
from sculpt.search.preparation import choose_device, describe_data, load_data
from sculpt.search.sampling.feasibility import check_candidate, total_trials
from sculpt.search.sampling.space import check_params, extremes
from sculpt.summary import describe_machine
from sculpt.typed_json import to_json

MOST_CANDIDATES = 8


def bench(
    config: Study,
    params: dict[str, Any],
    *,
    device: str = "auto",
    against_standard: bool = False,
    effort: Effort | None = None,
    on_network: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Measure the dense base and candidates of a study; keep the result for `sculpt check`.

    Args:
        config:
            The study.
        params:
            The one candidate to measure; values left out stay as in the study file. Empty: the
            feasible corners of the space, at most 8 of them.
        device:
            A torch device, or `auto`.
        against_standard:
            Train by the standard loop too, in turns.
        effort:
            How much to spend on it.
        on_network:
            Is told which network is measured next.

    Returns:
        The JSON document of `sculpt bench` (README, "JSON").

    Raises:
        InputError: the study cannot be run as it is, or not with these parameters.
    """
    check_params(config.space, params)
    target = choose_device(device)
    spec = describe_data(config)
    trials = total_trials(config, spec)
    candidates = choose_candidates(config, params, spec)
    splits = load_data(config).to(target)

    rows: list[Row] = []
    seconds: dict[str, list[float]] = {"base": [], "candidate": []}
    with ExitStack() as stack:
        opponent = stack.enter_context(Opponent()) if against_standard else None
        stopwatch = Stopwatch(config, splits, effort or Effort(), opponent)
        everything: list[tuple[Role, dict[str, Any]]] = [("base", {})]
        everything += [("candidate", point) for point in candidates]
        for role, point in everything:
            on_network(describe_parameters(point) or "the base")
            measured, total = stopwatch.measure(role, point)
            rows += measured
            seconds[role].append(total)

    replicates = config.search.replicates
    per_trial = {role: replicates * mean(times) for role, times in seconds.items()}
    document = {
        "study": config.study,
        "fingerprint": config.fingerprint(),
        **to_json(describe_machine(target)),
        "rows": rows,
        "predicted": {
            "seconds": study_seconds(config, trials, per_trial),
            "trials": trials,
            "seconds_per_trial": per_trial,
        },
    }
    keep_bench(config, document)
    return document


def choose_candidates(
    config: Study, params: dict[str, Any], spec: ImageSpec
) -> list[dict[str, Any]]:
    """Return the points of the space that are measured; see `bench`.

    Raises:
        InputError: none of them can hold the budget.
    """
    points = [params] if params else list(extremes(config.space))
    feasible, reason = [], None
    for point in points:
        candidate = config.with_parameters(point)
        found = check_candidate(config, candidate, spec).reason
        if found is None:
            feasible.append(point)
        reason = found or reason
    if not feasible:
        raise InputError(
            f"a measured candidate must hold the budget, but none does: {reason}; "
            "choose another with --set params.KEY=VALUE"
        )
    # Spread evenly: the first ones would differ in the last parameters alone.
    count = min(MOST_CANDIDATES, len(feasible))
    return [feasible[i * (len(feasible) - 1) // max(1, count - 1)] for i in range(count)]
