"""A study in jobs of Slurm, by submitit: each job is a worker that joins the study."""

from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any

from rich.console import Console

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.search.clusters.invitation import Invitation, invite
from sculpt.search.progress import LiveView
from sculpt.search.session import Session
from sculpt.search.workers.devices import WorkerCount
from sculpt.search.workers.processes import stop
from sculpt.storage.artifacts import storage_file
from sculpt.storage.failures import in_one_line

MOST_REQUEUES = 10_000
"""Requeues of a job that runs out of time; the study says when there is nothing left to do."""


@dataclass(frozen=True)
class SlurmJob:
    """The callable of one job. submitit calls it, and `checkpoint` before the job is ended."""

    invitation: Invitation

    def __call__(self) -> None:
        """Join the study, in processes of their own, which `checkpoint` can stop."""
        self.invitation(LiveView(Console(width=160)))

    def checkpoint(self) -> Any:
        """Put the running trials in order, and return what the job runs when it is back."""
        from submitit.helpers import DelayedSubmission

        stop(active_children())
        return DelayedSubmission(self)


def submit_jobs(
    config: Study,
    jobs: int,
    count: WorkerCount,
    device: str,
    parameters: Mapping[str, object],
    cluster: str = "slurm",
) -> list[str]:
    """Make a study ready to be worked on, submit jobs that join it, and return their ids; see
    `sculpt.submit`. There are `count` workers in each job.

    Logs of the jobs are written beside the study's storage, in `NAME-jobs/`.
    """
    try:
        import submitit
    except ImportError:
        raise InputError(
            "--slurm must find submitit, but it is not installed here. Install it with: "
            "pip install 'sculpt[slurm]'"
        ) from None
    file = storage_file(config).absolute()
    folder = file.with_name(f"{file.stem}-jobs")
    try:
        executor = submitit.AutoExecutor(
            folder, cluster=cluster, slurm_max_num_timeout=MOST_REQUEUES
        )
        executor.update_parameters(name=f"sculpt-{config.study}", **parameters)
    except (RuntimeError, NameError, AssertionError, TypeError, ValueError) as error:
        raise InputError(
            "--slurm must find Slurm here, and --slurm-set be parameters that submitit knows, but: "
            f"{in_one_line(error)}"
        ) from error
    Session.start(config, []).store.storage.close()
    job = SlurmJob(invite(config, device, count))
    try:
        submitted = executor.submit_array([job] * jobs)
    except submitit.core.utils.FailedJobError as error:
        raise InputError(
            f"Slurm must take the jobs, but: {in_one_line(error)}; mend --slurm-set"
        ) from error
    return [str(job.job_id) for job in submitted]
