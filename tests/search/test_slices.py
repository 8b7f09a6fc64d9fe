"""A study run in slices: stopped as timeout(1) stops it, and carried to the next machine."""

import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from watchers import Interrupt

import sculpt
from sculpt.bundle import read_bundle
from sculpt.storage.trials import MAX_RETRIES
from studies import write_study

SETTINGS = {
    "training__epochs": 9,
    "training__translate": 1,
    "search__trials": 2,
    "search__replicates": 1,
    "search__checkpoint_seconds": 0,
    "space__parameters": {"widening": [3]},
    "storage": "runs/tiny.db",
}

RUN = [sys.executable, "-m", "sculpt", "run", "tiny.yaml", "--device", "cpu"]


def checkpoints(folder: Path) -> dict[Path, int]:
    """Return when each file that the training of a seed goes on from was written."""
    files = folder.glob("runs/*/checkpoints/*/*/*/*/training.safetensors")
    return {file: file.stat().st_mtime_ns for file in files if file.exists()}


def run_a_slice(folder: Path) -> int:
    """Run until three more epochs are written down; then stop, and return the exit code.

    timeout(1) sends the signal to the process, and at once to its group, in which the process is.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(RUN, cwd=folder, env=environment, start_new_session=True)
    seen: set[tuple[Path, int]] = set(checkpoints(folder).items())
    epochs = 0
    while process.poll() is None:
        if new := set(checkpoints(folder).items()) - seen:
            seen |= new
            epochs += 1
        if epochs == 3:
            os.kill(process.pid, signal.SIGINT)
            os.killpg(process.pid, signal.SIGINT)
            break
        time.sleep(0.01)
    return process.wait(timeout=300)


@pytest.mark.slow
def test_a_trial_may_take_more_slices_than_a_dying_one_has_attempts(tmp_path):
    path = write_study(tmp_path, **(SETTINGS | {"training__epochs": MAX_RETRIES + 5}))
    overrides = {"storage": str(tmp_path / "tiny.db")}
    slices = MAX_RETRIES + 3
    for number in range(slices):
        with pytest.raises(KeyboardInterrupt):
            sculpt.run(path, overrides=overrides, watcher=Interrupt(number + 1))
    results = sculpt.run(path, overrides=overrides)
    tally = results.tally()
    assert (tally["complete"], tally["failed"]) == (2, 0)
    assert results.record("base")["runs"][0]["training"]["resumed_at"] == [*range(1, slices + 1)]


@pytest.mark.slow
def test_slices_come_to_what_one_run_does(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    write_study(whole, **SETTINGS)
    monkeypatch.chdir(whole)
    sculpt.run("tiny.yaml", device="cpu")
    codes, state = [], tmp_path / "state.tar.gz"
    for number in range(6):
        folder = tmp_path / f"machine-{number}"
        folder.mkdir()
        write_study(folder, **SETTINGS)
        if state.exists():
            with tarfile.open(state) as archive:
                archive.extractall(folder, filter="data")
        codes.append(run_a_slice(folder) if number < 2 else subprocess.call(RUN, cwd=folder))
        with tarfile.open(state, "w:gz") as archive:
            archive.add(folder / "runs", "runs")
        if codes[-1] != 130:
            break
    assert codes == [130, 130, 0]

    def found(folder: Path) -> sculpt.Results:
        monkeypatch.chdir(folder)
        return sculpt.open_results("tiny", "runs/tiny.db")

    for trial in ("base", 0):
        expected, ours = found(whole).record(trial), found(folder).record(trial)
        assert ours["val_errors"] == expected["val_errors"]
        for seed in expected["seeds"]:
            networks = []
            for where in (whole, folder):
                found(where).copy_network(trial, tmp_path / "network", seed)
                networks.append(read_bundle(tmp_path / "network").state)
            assert all((networks[0][key] == networks[1][key]).all() for key in networks[0])
    resumed = [run["training"]["resumed_at"] for run in found(folder).record("base")["runs"]]
    assert sum(map(len, resumed)) >= 1  # and was not trained from its beginning again


@pytest.mark.slow
def test_a_study_is_the_same_however_it_was_killed():
    """Configurations and losses, to the bit; run the script for more moments."""
    script = Path(__file__).with_name("interrupted_runs.py")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, script, "--runs", "1", "--stops", "3", "--kill"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs, 0 differ" in done.stdout
