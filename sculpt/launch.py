"""Run a study and hand out its results: `sculpt.run`; look at one candidate without training.

Apart from `results`, because asking for results must not wait for PyTorch to be imported.
"""

from functools import partial
from pathlib import Path
from typing import Any

from sculpt.config import Study
from sculpt.record import Clock
from sculpt.results.records import Results
from sculpt.search.preparation import choose_device, load_data, load_scoring_images
from sculpt.search.progress import Watcher
from sculpt.search.space import check_params
from sculpt.search.study import run_study
from sculpt.search.workers import TrialsPerDevice, check_trials_per_device, run_together
from sculpt.study_file import load_study
from sculpt.training.precision import float32_products
from sculpt.trial import Sculpted, candidate_budget, sculpt_network


def run(
    study: str | Path | Study,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    trials_per_device: TrialsPerDevice = 1,
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
        trials_per_device:
            How many candidates are trained at a time, each in a process of its own; `auto`
            measures which number is the fastest. More than 1 needs what every use of Python's
            `multiprocessing` needs: a script calls this under `if __name__ == "__main__":`.

    Raises:
        InputError: the study cannot be run as it is; nothing was written.
        SculptError: the base failed, or every candidate did.
    """
    check_trials_per_device(trials_per_device)
    config = study if isinstance(study, Study) else load_study(study, overrides)
    together = partial(run_together, trials_per_device=trials_per_device)
    run_trials = None if trials_per_device == 1 else together
    return Results(run_study(config, device=device, watcher=watcher, run=run_trials))


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
    check_params(config.space, params)
    target = choose_device(device)
    candidate = config.with_parameters(params)
    splits = load_data(config).to(target)
    budget = candidate_budget(config, candidate, splits.spec)
    with float32_products("float32", target):
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
