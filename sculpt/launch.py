"""Run a study and hand out its results: `sculpt.run`; look at one candidate without training.

Apart from `results`, because asking for results must not wait for PyTorch to be imported.
"""

from pathlib import Path
from typing import Any

from sculpt.config import Range, Space, Study
from sculpt.errors import InputError
from sculpt.record import Clock
from sculpt.results.records import Results
from sculpt.search.preparation import choose_device, load_data, load_scoring_images
from sculpt.search.progress import Watcher
from sculpt.search.study import run_study
from sculpt.study_file import load_study
from sculpt.trial import Sculpted, candidate_budget, sculpt_network


def run(
    study: str | Path | Study,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
) -> Results:
    """Start a study, or go on with it, until its total of trials is finished.

    Args:
        study:
            A study file, or a loaded one.
        overrides:
            Dotted keys to values, set in the file first, for example {"search.trials": 4}.
        device:
            A torch device, or `auto`.
        watcher:
            Is told of the progress.

    Raises:
        InputError: the study cannot be run as it is; nothing was written.
        SculptError: the base failed, or every candidate did.
    """
    config = study if isinstance(study, Study) else load_study(study, overrides)
    return Results(run_study(config, device=device, watcher=watcher))


def diagnose_candidate(
    config: Study, params: dict[str, Any], *, device: str = "auto"
) -> tuple[dict[str, Any], Sculpted]:
    """Prune and repair one candidate of a study, with its first seed, and train nothing.

    Args:
        config:
            The study.
        params:
            Values of the space's parameters; those left out stay as in the study file.
        device:
            A torch device, or `auto`.

    Returns:
        What is known of it as a JSON document (README, "JSON"), and the network itself.

    Raises:
        InputError: a parameter is none of the space's, or the candidate cannot be pruned so.
    """
    _check_params(config.space, params)
    target = choose_device(device)
    candidate = config.with_parameters(params)
    splits = load_data(config).to(target)
    budget = candidate_budget(config, candidate, splits.spec)
    sculpted = sculpt_network(
        candidate,
        splits,
        role="candidate",
        budget=budget,
        seed=config.search.seed,
        scoring=load_scoring_images(candidate, splits),
        clock=Clock(target),
    )
    record = sculpted.record
    signal = record["signal"]
    steps = {"init": "initial", "pruned": "pruned", "repaired": "repaired"}
    taken = {step: signal.get(name, {}) for step, name in steps.items()}
    last = taken["repaired"] or taken["pruned"]
    document = {
        "study": config.study,
        "params": params,
        "seed": record["seed"],
        "counting": config.counting,
        "budget": budget,
        "kept_parameters": record["kept_parameters"],
        "dense_parameters": record["dense_parameters"],
        "sparsity": 1 - record["kept_parameters"] / record["dense_parameters"],
        "kept_macs": record["kept_macs"],
        "collapsed_layers": record["collapsed_layers"],
        "layers": record["layers"],
        "jsv": {step: found.get("jacobian") for step, found in taken.items()},
        "orthogonality": {step: found.get("orthogonality_score") for step, found in taken.items()},
        "effective": {
            "nodes": last["effective_nodes"],
            "log10_paths": last["log10_paths"],
            "parameters": last["effective_parameters"],
        },
        "seconds": record["seconds"],
    }
    return document, sculpted


def _check_params(space: Space, params: dict[str, Any]) -> None:
    for key, value in params.items():
        if key not in space.parameters:
            raise InputError(
                f"params must be parameters of the space ({', '.join(space.parameters)}), but got "
                f"{key!r}; for other keys of the study use --set KEY=VALUE"
            )
        values = space.parameters[key]
        known = space.values(key)
        if not isinstance(values, Range) and value not in known:
            raise InputError(
                f"params.{key} must be one of {', '.join(map(str, known))}, but got {value!r}"
            )
        if isinstance(values, Range) and not values.low <= value <= values.high:
            raise InputError(
                f"params.{key} must be from {values.low} to {values.high}, but got {value!r}"
            )
