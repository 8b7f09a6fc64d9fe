"""A study in jobs of submitit: its local executor stands in for Slurm."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import sculpt
from sculpt.errors import InputError
from studies import check_complete, write_study


@pytest.fixture(autouse=True)
def _submitit():
    pytest.importorskip("submitit", reason="needs submitit (pip install submitit)")


def submitted(path: Path, **options: Any) -> list[str]:
    """Submit a study to processes of this machine."""
    minutes = {"timeout_min": 10}
    return sculpt.submit(path, cluster="local", device="cpu", parameters=minutes, **options)


def children(parent: int) -> list[int]:
    """Return the processes that a process has started, the living ones."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, started_by = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended meanwhile
            continue
        if int(started_by) == parent and state != "Z":
            found.append(int(status.parent.name))
    return found


def tally(path: Path) -> dict[str, int]:
    return sculpt.open_results(path).tally()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_jobs_complete_a_study(tmp_path, wait_until):
    # Long enough that a trial is in the middle, on a fast machine, too.
    path = write_study(tmp_path, search__trials=4, training__epochs=100)
    jobs = submitted(path, workers=2)
    assert len(set(jobs)) == 2
    wait_until(lambda: tally(path)["running"] == 2)
    # What Slurm sends before it takes a machine away, or when the time is up.
    (job,) = children(int(jobs[0]))
    os.kill(job, signal.SIGUSR2)
    wait_until(lambda: tally(path)["interrupted"] >= 1)  # soon: its worker put it in order
    wait_until(lambda: not any(children(int(job)) for job in jobs))
    check_complete(path, 4)
    log = (tmp_path / "tiny-jobs" / f"{jobs[0]}_0_log.out").read_text()
    assert "4 trials" in log
    assert log.count("Job completed successfully") == 1


def test_jobs_that_cannot_be_submitted(tmp_path, monkeypatch, sculpt_command):
    path = write_study(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, error = sculpt_command("run", path, "--slurm", "--workers", 2)
    assert (code, "--slurm must find Slurm here" in error) == (2, True)
    code, _, error = sculpt_command("run", path, "--slurm-set", "gpus_per_node=1")
    assert (code, "--slurm-set must go with --slurm" in error) == (2, True)
    code, _, error = sculpt_command("run", path, "--slurm", "--ray", "local")
    assert (code, "by Slurm or by Ray" in error) == (2, True)
    with pytest.raises(InputError, match=r"parameters that submitit knows, but: .*'nonsense'"):
        sculpt.submit(path, cluster="local", parameters={"nonsense": 1})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'sculpt\[slurm\]'"):
        sculpt.submit(path)
