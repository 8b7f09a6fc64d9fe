"""Commands that train: run a study, or join one."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

import sculpt
from sculpt.cli.options import (
    Devices,
    Json,
    Plugins,
    Set,
    Storage,
    StudyFile,
    StudyName,
    TrialsPerDevice,
    Workers,
    overrides,
    progress_console,
    read_trials_per_device,
    say_next,
    show_document,
)
from sculpt.errors import InputError

if TYPE_CHECKING:
    from sculpt.config import Study


def run(
    study: StudyFile,
    set: Set = None,
    storage: Storage = None,
    device: Devices = "auto",
    workers: Workers = None,
    trials_per_device: TrialsPerDevice = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Let Ray start the workers: local, auto, or HOST:PORT."
        ),
    ] = None,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Submit --workers jobs to Slurm, and leave.")
    ] = False,
    slurm_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Parameter of each job; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study, or go on with it, up to its total of trials.

    Then ranks them. Ctrl-C stops it at once; the same command goes on where it stopped.

    Examples:
        sculpt run studies/digits.yaml
        sculpt run studies/digits.yaml --set search.trials=5 --workers 2
        sculpt run studies/cifar10.yaml --device cuda:0,cuda:1
        sculpt run studies/digits.yaml --ray local --workers 2
        sculpt run studies/cifar10.yaml --slurm --workers 8
    """
    from sculpt.results.tables.ranking import ranking_tables
    from sculpt.search.progress import LiveView

    each = read_trials_per_device(trials_per_device, None if ray or slurm else workers)
    if slurm_set and not slurm:
        raise InputError("--slurm-set must go with --slurm, but there is none; add it")
    if slurm and ray:
        raise InputError(
            "the workers must be started by Slurm or by Ray, but got --slurm and --ray"
        )
    if slurm:
        from sculpt.launch import open_study

        config = open_study(study, overrides(set, storage))
        jobs = sculpt.submit(
            config,
            device=device,
            workers=1 if workers is None else workers,
            trials_per_device=each,
            parameters=overrides(slurm_set, option="--slurm-set"),
        )
        show_document({"study": config.study, "jobs": jobs}, as_json, _describe_jobs)
        return
    changes = overrides(set, storage)
    with _interruptible():
        results = sculpt.run(
            study,
            overrides=changes,
            device=device,
            watcher=LiveView(progress_console()),
            workers=workers,
            trials_per_device=each,
            ray=ray,
        )
    show_document(sculpt.rank(results), as_json, ranking_tables)
    if not as_json:
        _say_next(study, changes, results.config)


def worker(
    study: StudyName,
    set: Set = None,
    storage: Storage = None,
    device: Devices = "auto",
    workers: Workers = None,
    trials_per_device: TrialsPerDevice = None,
    plugins: Plugins = None,
    as_json: Json = False,
) -> None:
    """Join a study that was started elsewhere, until it is done.

    From any machine that reaches its storage. The settings are read from there; --set takes only
    where this machine has its images and artifacts.

    Examples:
        sculpt worker studies/digits.yaml --workers 2
        sculpt worker cifar10 --storage postgresql://me@server/studies
    """
    from sculpt.search.progress import LiveView

    each = read_trials_per_device(trials_per_device, workers)
    view = LiveView(progress_console())
    with _interruptible():
        results = sculpt.join(
            study,
            storage,
            overrides=overrides(set),
            device=device,
            watcher=view,
            workers=workers,
            trials_per_device=each,
        )
    document = sculpt.status(results) | {"finished_here": view.finished}
    show_document(document, as_json, _describe_work)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        from sculpt.config import without_password

        same = [without_password(word) for word in sys.argv[1:]]
        say_next("interrupted: finished trials are kept, the same command goes on:", same)
        raise typer.Exit(130) from None


def _say_next(study: str, changes: dict[str, Any], config: "Study") -> None:
    """Print what shows the results, and what uses them, with all that finds the study again."""
    from sculpt.config import without_password

    renamed, storage = "study" in changes, changes.get("storage")
    named = [config.study if renamed else study]
    if renamed or storage:
        named += ["--storage", without_password(storage or config.storage_url)]
    use = ["pareto", *named]
    if config.search.networks != "none":
        plugins = [word for module in config.plugins for word in ("--plugins", module)]
        use = ["export", *named, "--trial", "best", *plugins]
    python_path = os.environ.get("PYTHONPATH") if config.plugins else None
    say_next("next:", ["report", *named], use, python_path=python_path)


def _describe_jobs(document: dict[str, Any]) -> str:
    study, jobs = document["study"], document["jobs"]
    return (
        f"{study}: submitted {len(jobs)} jobs ({', '.join(jobs)}); the study goes on in them, "
        "and sculpt status shows how far it is"
    )


def _describe_work(document: dict[str, Any]) -> str:
    from sculpt.units import describe_tally

    return (
        f"{document['study']}: {document['finished_here']} trial(s) finished here, and nothing is "
        f"left to do: {describe_tally(document['trials'])}"
    )
