"""Run a study, join one, and hand out its results; look at one candidate without training.

Apart from `results`, because asking for results must not wait for PyTorch to be imported.
"""

from pathlib import Path
from typing import Any

from sculpt.config import Study
from sculpt.job import Job, Sculpted, candidate_budget
from sculpt.measuring import Measuring
from sculpt.quantities import STEPS
from sculpt.results.records import Results
from sculpt.search.archive.recognition import is_archive, refuse_archive
from sculpt.search.preparation import choose_device, load_data, load_scoring_images
from sculpt.search.progress import Watcher
from sculpt.search.sampling.space import check_params
from sculpt.search.study import run_study
from sculpt.search.workers.joining import join_study
from sculpt.search.workers.together import HowMany, TrialsPerDevice
from sculpt.study_file import load_study
from sculpt.training.precision import float32_products
from sculpt.trial import sculpt_network
from sculpt.typed_json import to_json


def run(
    study: str | Path | Study,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    workers: int | None = None,
    trials_per_device: TrialsPerDevice = 1,
    ray: str | None = None,
) -> Results:
    """Start a study, or go on with it, until its total of trials is finished.

    Several workers are processes of their own, and need what every use of Python's
    `multiprocessing` needs: a script calls this under `if __name__ == "__main__":`.

    Args:
        study:
            A study file, or a loaded one.
        overrides:
            Dotted keys to values, set in the file first, for example {"search.trials": 4}.
        device:
            A torch device, several separated by commas (`cuda:0,cuda:1`), or `auto`: a GPU where
            there is one, and for several workers all of them.
        watcher:
            Is told of the progress.
        workers:
            How many processes train candidates, dealt out to the devices in turn; by default as
            many as `trials_per_device` says.
        trials_per_device:
            How many candidates are trained at a time on each device; `auto` measures which number
            is the fastest.
        ray:
            Let Ray start the workers: `local` on this machine, else the address of a Ray cluster,
            or `auto` for the one that this machine belongs to.

    Raises:
        InputError: the study cannot be run as it is; nothing was written.
        SculptError: the base failed, or every candidate did.
    """
    how_many = HowMany(workers, trials_per_device)
    config = study if isinstance(study, Study) else _load(study, overrides)
    if ray is not None:
        from sculpt.search.workers.ray_cluster import run_on_ray

        return Results(run_on_ray(config, ray, device, watcher, how_many))
    return Results(run_study(config, device=device, watcher=watcher, how_many=how_many))


def join(
    study: str | Path,
    storage: str | None = None,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    watcher: Watcher | None = None,
    workers: int | None = None,
    trials_per_device: TrialsPerDevice = 1,
) -> Results:
    """Work on a study that was started elsewhere, until nothing is left to do.

    Any machine that reaches the study's storage can do so, at any time. What is trained stands
    in the storage; of a study file only `data.root`, `data.download` and `storage` are read.

    Args:
        study:
            A study file, or the name of a study.
        storage:
            Where it is kept; by default where the file says, or `runs/NAME.db`.
        overrides:
            Where this machine has its images, for example {"data.root": "/images"}.
        device:
            As for `run`.
        watcher:
            Is told of the progress.
        workers:
            As for `run`.
        trials_per_device:
            As for `run`.

    Raises:
        StorageError: there is no such study there.
        InputError: this machine cannot work on it; for example, its images are others.
        SculptError: the base failed, or every candidate did.
    """
    store = join_study(
        study,
        storage,
        overrides=overrides,
        device=device,
        watcher=watcher,
        how_many=HowMany(workers, trials_per_device),
    )
    return Results(store)


def submit(
    study: str | Path | Study,
    *,
    overrides: dict[str, Any] | None = None,
    device: str = "auto",
    workers: int = 1,
    trials_per_device: TrialsPerDevice = 1,
    parameters: dict[str, Any] | None = None,
    cluster: str = "slurm",
) -> list[str]:
    """Start a study in jobs of Slurm, each of which joins it, and return their ids at once.

    Args:
        study:
            A study file, or a loaded one.
        overrides:
            Dotted keys to values, set in the file first.
        device:
            In each job; a torch device, several separated by commas, or `auto`.
        workers:
            How many jobs.
        trials_per_device:
            How many candidates each of them trains at a time.
        parameters:
            What each job asks for, as submitit's `update_parameters` takes it, for example
            {"slurm_partition": "gpu", "timeout_min": 240, "gpus_per_node": 1}.
        cluster:
            `local` runs the jobs on this machine, without Slurm.

    Raises:
        InputError: the study cannot be run as it is, or the jobs cannot be submitted so.
    """
    from sculpt.search.workers.slurm import submit_jobs

    HowMany(workers)
    config = study if isinstance(study, Study) else _load(study, overrides)
    each = HowMany(trials_per_device=trials_per_device, apart=True)
    return submit_jobs(config, workers, each, device, parameters or {}, cluster)


def _load(study: str | Path, overrides: dict[str, Any] | None) -> Study:
    if is_archive(study):
        refuse_archive(study, "what is run must be a study file")
    return load_study(study, overrides)


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
    seed = config.search.seed
    job = Job("diagnose", candidate, "candidate", params, budget, [seed])
    with float32_products("float32", target):
        scoring = load_scoring_images(candidate, splits)
        sculpted = sculpt_network(job, splits, scoring, Measuring(job, splits, seed))
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
        "jacobian": {step: signal[step].jacobian if step in signal else None for step in STEPS},
        "orthogonality_score": {
            step: signal[step].orthogonality_score if step in signal else None for step in STEPS
        },
        "effective": {
            "nodes": last.effective_nodes,
            "log10_paths": last.log10_paths,
            "parameters": last.effective_parameters,
        },
        "seconds": record.seconds,
    }
    return to_json(document), sculpted
