"""Commands on a study file: check it, measure it, diagnose one candidate; run it, and join.

Apart from `results`, because asking for results must not wait for PyTorch to be imported.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sculpt.arithmetic import float32_products
from sculpt.benchmark.prediction import predict
from sculpt.benchmark.race import Effort
from sculpt.benchmark.throughput import MeasuredStudy, measure_study
from sculpt.config import Overrides, Params, Study
from sculpt.errors import SculptWarning
from sculpt.measuring import Measuring
from sculpt.quantities import MILESTONES
from sculpt.search.images import (
    check_scoring_images,
    describe_data,
    load_data,
    load_scoring_images,
    missing_data,
    missing_scoring_data,
)
from sculpt.search.opponents import opponent_sizes
from sculpt.search.progress import Watcher
from sculpt.search.sampling.feasibility import CheckedStudy, check_study
from sculpt.search.sampling.space import check_params
from sculpt.search.session import Session
from sculpt.search.workers.devices import (
    TrialsPerDevice,
    WorkerCount,
    choose_device,
    choose_devices,
)
from sculpt.storage.store import is_archive, refuse_archive
from sculpt.study_file import load_study
from sculpt.trial import sculpt_network
from sculpt.trial_setup import Sculpted, TrialSetup, candidate_budget, candidate_macs
from sculpt.typed_json import to_json

if TYPE_CHECKING:  # pandas takes a quarter of a second to import, and only results need it
    from sculpt.results.records import Results

StudySource = str | Path | Study
"""A study file; or a loaded study, which is taken as it is, whatever the overrides."""


def check(
    study: StudySource, overrides: Overrides | None = None, storage: str | None = None
) -> CheckedStudy:
    """Validate a study, and return the size of every corner of its space; trains nothing.

    Args:
        study: A study file, or a loaded one.
        overrides: Dotted keys to values, set in the file first, for example {"search.trials": 4}.
        storage: Where the study is kept, and with it the last measurement by `bench`; by default
            where the file says, or `runs/NAME.db`.

    Returns:
        The JSON document of `sculpt check` (docs/reference/json.md).

    Raises:
        InputError: The study cannot be run as it is.

    Warns:
        SculptWarning: Its images are not here yet, and how to get them.
    """
    config = open_study(study, overrides, storage)
    spec = describe_data(config)
    document = check_study(config, spec)
    if config.opponents:
        document["opponents"] = opponent_sizes(config, spec)
    document["predicted"] = predict(config, document["trials"])
    if missing := missing_data(config) or missing_scoring_data(config):
        warnings.warn(missing, SculptWarning, stacklevel=2)
    else:
        check_scoring_images(config, load_data(config))
    return document


def bench(
    study: StudySource,
    overrides: Overrides | None = None,
    *,
    device: str = "auto",
    against_standard: bool = False,
    effort: Effort | None = None,
    on_network: Callable[[str], None] = lambda name: None,
) -> MeasuredStudy:
    """Measure the speed of this machine on a study, and predict what running it takes.

    With `against_standard` a script calls this under `if __name__ == "__main__":`.

    Args:
        study: A study file, or a loaded one.
        overrides:
            Dotted keys to values, set in the file first. `params.KEY` chooses one candidate, as in
            {"params.widening": 2}; without any, the feasible corners of the space are measured, at
            most 8 of them. The measurement is kept beside `storage`, where `check` finds it.
        device: A torch device, or `auto`.
        against_standard: Train by a plain PyTorch loop too, in turns.
        effort: How much to spend on it.
        on_network: Called with the name of the network that is measured next.

    Returns:
        The JSON document of `sculpt bench` (docs/reference/json.md).

    Raises:
        InputError: The study cannot be run as it is, or not with these parameters.
    """
    config, params = _open_candidate(study, overrides)
    check_params(config.space, params)
    return measure_study(
        config,
        params,
        choose_device(device),
        against_standard=against_standard,
        effort=effort or Effort(),
        on_network=on_network,
    )


def run(
    study: StudySource,
    *,
    overrides: Overrides | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    workers: int | None = None,
    trials_per_device: TrialsPerDevice = 1,
    ray: str | None = None,
) -> "Results":
    """Start a study, or go on with it, until its total of trials is finished.

    A study file with a section `published` gets the measured figures written beside it, in
    `NAME.measured.yaml`.

    Several workers are processes of their own, and need what every use of Python's
    `multiprocessing` needs: a script calls this under `if __name__ == "__main__":`.

    Args:
        study: A study file, or a loaded one.
        overrides: Dotted keys to values, set in the file first, for example {"search.trials": 4}.
        device: A torch device, several separated by commas (`cuda:0,cuda:1`), or `auto`: a GPU
            where there is one, and for several workers all of them.
        watcher: Receives the progress.
        workers: Number of processes that train candidates, dealt out to the devices in turn; by
            default as many as `trials_per_device` says.
        trials_per_device: Number of candidates trained at a time on each device; `auto` measures
            which is the fastest.
        ray: Let Ray start the workers: `local` on this machine, else the address of a Ray cluster,
            or `auto` for the one that this machine belongs to.

    Raises:
        InputError: The study cannot be run as it is; nothing was written.
        SculptError: The base failed, or every candidate did.
    """
    from sculpt.results.records import Results

    count = WorkerCount(workers, trials_per_device)
    config = open_study(study, overrides)
    if ray is not None:
        from sculpt.search.clusters.ray_cluster import run_on_ray

        results = Results(run_on_ray(config, ray, device, watcher, count))
    else:
        session = Session.start(config, choose_devices(device, several=count.several))
        results = Results(session.run(watcher or Watcher(), count))
    if config.published and not isinstance(study, Study):
        from sculpt.results.published import measured_path, write_measured

        path = measured_path(study)
        write_measured(results, path)
        if watcher is not None:
            watcher.message(f"measured figures: {path}")
    return results


def join(
    study: str | Path,
    storage: str | None = None,
    *,
    overrides: Overrides | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    workers: int | None = None,
    trials_per_device: TrialsPerDevice = 1,
) -> "Results":
    """Work on a study that was started elsewhere, until nothing is left to do.

    Any machine that reaches the study's storage can do so, at any time. What is trained stands
    in the storage; of a study file only `data.root`, `data.download` and `storage` are read.

    Args:
        study: A study file, or the name of a study.
        storage: Where it is kept; by default where the file says, or `runs/NAME.db`.
        overrides: Where this machine has its images, for example {"data.root": "/images"}.
        device, watcher, workers, trials_per_device: As for `run`.

    Raises:
        StorageError: There is no such study there.
        InputError: This machine cannot work on it; for example, its images are others.
        SculptError: The base failed, or every candidate did.
    """
    from sculpt.results.records import Results

    count = WorkerCount(workers, trials_per_device)
    devices = choose_devices(device, several=count.several)
    session = Session.join(study, storage, overrides or {}, devices)
    return Results(session.run(watcher or Watcher(), count))


def submit(
    study: StudySource,
    *,
    overrides: Overrides | None = None,
    device: str = "auto",
    workers: int = 1,
    trials_per_device: TrialsPerDevice = 1,
    parameters: Mapping[str, object] | None = None,
    cluster: str = "slurm",
) -> list[str]:
    """Start a study in jobs of Slurm, each of which joins it, and return their ids at once.

    Args:
        study: A study file, or a loaded one.
        overrides: Dotted keys to values, set in the file first.
        device: In each job; a torch device, several separated by commas, or `auto`.
        workers: Number of jobs.
        trials_per_device: Number of candidates that each of them trains at a time.
        parameters: Parameters of each job, as submitit's `update_parameters` takes it, for example
            {"slurm_partition": "gpu", "timeout_min": 240, "gpus_per_node": 1}.
        cluster: `local` runs the jobs on this machine, without Slurm.

    Raises:
        InputError: The study cannot be run as it is, or the jobs cannot be submitted so.
    """
    from sculpt.search.clusters.slurm import submit_jobs

    WorkerCount(workers)
    each = WorkerCount(trials_per_device=trials_per_device, apart=True)
    return submit_jobs(
        open_study(study, overrides), workers, each, device, parameters or {}, cluster
    )


def open_study(
    study: StudySource, overrides: Overrides | None, storage: str | None = None
) -> Study:
    """Return the study of a file, with changes.

    Raises:
        InputError: It is no study file, or the study cannot be run as it is.
    """
    if isinstance(study, Study):
        return study
    if is_archive(study):
        refuse_archive(study, "what is run, checked or measured must be a study file")
    return load_study(study, (overrides or {}) | ({} if storage is None else {"storage": storage}))


def _open_candidate(study: StudySource, overrides: Overrides | None) -> tuple[Study, Params]:
    """Return a study, and the values that `params.KEY` among the overrides gives its space."""
    given = overrides or {}
    params = {key: value for key, value in given.items() if key.startswith("params.")}
    config = open_study(study, {key: value for key, value in given.items() if key not in params})
    return config, {key.removeprefix("params."): value for key, value in params.items()}


def diagnose_candidate(
    study: StudySource,
    overrides: Overrides | None = None,
    *,
    device: str = "auto",
    plot: str | Path | None = None,
) -> tuple[dict[str, Any], Sculpted]:
    """Prune and repair one candidate of a study, with its first seed, and train nothing.

    Args:
        study: A study file, or a loaded one.
        overrides: Dotted keys to values, set in the file first; `params.KEY` is a value of the
            space's parameter KEY, and those left out stay as in the study file.
        device: A torch device, or `auto`.
        plot: A file to draw layer sparsities and scores into; its ending says the format.

    Returns:
        Its JSON document (docs/reference/json.md), and the network itself.

    Raises:
        InputError: A parameter is none of the space's, or the candidate cannot be pruned so.
    """
    config, params = _open_candidate(study, overrides)
    check_params(config.space, params)
    target = choose_device(device)
    candidate = config.with_parameters(params)
    splits = load_data(config).to(target)
    budget = candidate_budget(config, candidate, splits.spec)
    seed = config.search.seed
    macs = candidate_macs(config, candidate, splits.spec)
    setup = TrialSetup("diagnose", candidate, "candidate", params, budget, [seed], macs=macs)
    with float32_products("float32", target):
        scoring = load_scoring_images(candidate, splits)
        sculpted = sculpt_network(setup, splits, scoring, Measuring(setup, splits, seed))
    record, signal = sculpted.record, sculpted.record.signal
    last = record.final_signal
    document = {
        "study": config.study,
        "params": params,
        "seed": seed,
        "counting": config.counting,
        "budget": budget,
        "kept_parameters": record.kept_parameters,
        "dense_parameters": record.dense_parameters,
        "sparsity": 1 - record.kept_parameters / record.dense_parameters,
        "kept_macs": record.kept_macs,
        "collapsed_layers": record.collapsed_layers,
        "layers": record.layers,
        "jacobian": {at: signal[at].jacobian if at in signal else None for at in MILESTONES},
        "orthogonality_score": {
            at: signal[at].orthogonality_score if at in signal else None for at in MILESTONES
        },
        "effective": {
            "nodes": last.effective_nodes,
            "log10_paths": last.log10_paths,
            "parameters": last.effective_parameters,
        },
        "seconds": record.seconds,
    }
    if macs is not None:
        document["macs"] = macs
    document = to_json(document)
    if plot is not None:
        from sculpt.presentation.figures.pruning import plot_pruning  # which imports what draws

        plot_pruning(document, sculpted.scores, Path(plot))
    return document, sculpted
