"""Running a study: exact totals, whatever interrupts it, and nothing run twice."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from watchers import Interrupt

import sculpt
from sculpt.data import Splits, make_splits
from sculpt.data.digits import Digits
from sculpt.errors import ConfigError, DataError, InputError, SculptError
from sculpt.search.progress import Watcher
from sculpt.storage.opening import open_store
from sculpt.storage.stored_trials import read_trials
from sculpt.training.loss_and_error import evaluate
from sculpt.training.memory import within_memory
from sculpt.trial import run_seed
from sculpt.trial_setup import TrialSetup
from studies import write_study

DRY = {"name": "ldi", "kernel": "delta"}
"""Leaves most weights at zero, so that no ranking of the whole network can be made."""


class Recorder(Watcher):
    """Keeps what it is told."""

    def __init__(self):
        self.told: list[tuple[Any, ...]] = []

    def run_started(self, total, done):
        self.told.append(("run", total, done))

    def trial_finished(self, label: int | str, val_error: float | None, problem: str | None):
        self.told.append(("trial", label, val_error, problem))


def configurations(results):
    """Return the sampled parameters of every trial that was not interrupted."""
    table = results.trials
    table = table[(table["state"] != "interrupted") & (table["trial"] != "base")]
    return [str(sorted(row.items())) for row in table.filter(like="params.").to_dict("records")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study, run to its end."""
    path = write_study(
        tmp_path_factory.mktemp("finished"), search__replicates=2, diagnostics__jacobian_images=2
    )
    return path, sculpt.run(path)


@pytest.mark.slow
def test_every_trial_keeps_the_size_of_the_base(finished):
    _, results = finished
    table = results.trials
    assert list(table["state"]) == ["complete"] * 4
    assert list(table["trial"]) == ["base", 0, 1, 2]
    assert set(table["kept_parameters"]) == {4874}
    assert (table[table["role"] == "candidate"]["sparsity"] > 0.7).all()
    assert results.tally()["total"] == results.tally()["complete"] == 4
    assert len(set(configurations(results))) == 3


@pytest.mark.slow
def test_the_weights_and_masks_are_kept(finished, tmp_path):
    from optuna.artifacts import download_artifact, get_all_artifact_meta

    _, results = finished
    store = results._store
    trial = store.candidates.get_trials()[0]
    metas = {m.filename: m for m in get_all_artifact_meta(trial, storage=store.storage)}
    assert set(metas) == {"record.json", "network-seed-0.safetensors", "network-seed-1.safetensors"}
    for seed in (0, 1):
        file = tmp_path / "network.safetensors"
        download_artifact(
            artifact_store=store.artifacts,
            artifact_id=metas[f"network-seed-{seed}.safetensors"].artifact_id,
            file_path=str(file),
        )
        network = sculpt.load(file)
        assert sum(int(mask.sum()) for mask in network.masks.values()) == 4874
        parameters = dict(network.model.named_parameters())
        assert all((parameters[name][~mask] == 0).all() for name, mask in network.masks.items())
        assert network.metadata["params"] == trial.params
        assert network.metadata["seed"] == seed
        # It is the very network that was evaluated: the same images, the same error.
        data = results.config.data
        splits = make_splits(
            Digits().read(),
            validation_fraction=data.validation_fraction,
            train_images=data.train_images,
        )
        assert splits.fingerprint == network.record["data_fingerprint"]
        _, error = evaluate(network.model, splits.validation, precision="float32")
        assert error == network.metadata["val_error"]
        assert network.metadata["input"] == {
            "channels": 1,
            "height": 8,
            "width": 8,
            "classes": 10,
            "mean": splits.train.mean.tolist(),
            "std": splits.train.std.tolist(),
            "class_names": list("0123456789"),
        }
        file.unlink()


@pytest.mark.slow
def test_a_finished_study_is_left_alone(finished):
    path, results = finished
    before = results.trials.to_json()
    watcher = Recorder()
    again = sculpt.run(path, watcher=watcher)
    assert watcher.told == [("run", 4, 4)]
    assert again.trials.to_json() == before


@pytest.mark.slow
def test_a_larger_total_goes_on(tmp_path):
    path = write_study(tmp_path, search__trials=2, search__replicates=1)
    first = sculpt.run(path).trials
    watcher = Recorder()
    results = sculpt.run(path, overrides={"search.trials": 5}, watcher=watcher)
    assert watcher.told[0] == ("run", 5, 2)
    assert len(watcher.told) == 1 + 3
    assert results.tally()["complete"] == 5
    assert len(set(configurations(results))) == len(configurations(results)) == 4
    assert results.trials.head(2)["val_errors"].to_list() == first["val_errors"].to_list()


@pytest.mark.slow
def test_other_settings_need_another_name(finished):
    path, results = finished
    before = results.trials.to_json()
    with pytest.raises(ConfigError, match=r"training.epochs \(was 1, is 2\)"):
        sculpt.run(path, overrides={"training.epochs": 2})
    assert results.trials.to_json() == before


@pytest.mark.slow
def test_infeasible_points_are_set_aside(tmp_path):
    path = write_study(
        tmp_path, budget=30_000, search__trials="all", search__replicates=1, training__batch_size=75
    )
    results = sculpt.run(path)
    table = results.trials
    assert results.tally()["complete"] == results.tally()["total"] == 4
    done = table[(table["state"] == "complete") & (table["trial"] != "base")]
    assert set(done["kept_parameters"]) == {30_000}
    for error in table[table["state"] == "infeasible"]["error"]:
        assert "at most 18626" in error


@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
def test_a_trial_that_fails_is_recorded_and_counts(tmp_path):
    space = {"pruning.initializer": [DRY, {"name": "ldi"}], "widening": [2]}
    path = write_study(
        tmp_path,
        space__parameters=space,
        search__trials=3,
        search__replicates=1,
        training__epochs=2,
    )
    watcher = Recorder()
    results = sculpt.run(path, watcher=watcher)
    table = results.trials.set_index("params.pruning.initializer")
    assert table.loc["ldi(kernel=delta)", "state"] == "failed"
    assert "scores must be non-zero" in table.loc["ldi(kernel=delta)", "error"]
    assert table.loc["ldi", "state"] == "complete"
    assert results.tally()["failed"] == 1
    assert results.tally()["complete"] == 2
    assert any(told[3] and "DryRankingError" in told[3] for told in watcher.told[1:])


@pytest.mark.slow
def test_a_candidate_that_diverges_is_a_result(tmp_path):
    """The search learns from it; it is neither a crash nor a failure."""
    path = write_study(
        tmp_path,
        space__parameters={"training.learning_rate": [1e30, 0.05], "widening": [2]},
        search__trials=3,
        training__epochs=2,
    )
    results = sculpt.run(path)
    table = results.trials.set_index("params.training.learning_rate")
    assert list(table["state"]) == ["complete"] * 3
    assert table.loc[1e30, "diverged"] == 1
    assert table.loc[1e30, "val_errors"] == [1]
    assert table.loc[0.05, "diverged"] == 0
    last = sculpt.rank(results)["ranking"][-1]
    assert (last["params"]["training.learning_rate"], last["diverged"]) == (1e30, 1)
    json.dumps(results.record(int(last["trial"])), allow_nan=False)


@pytest.mark.slow
def test_a_base_that_diverges_ends_the_run(tmp_path):
    path = write_study(tmp_path, training__learning_rate=1e30)
    with pytest.raises(SculptError, match=r"the dense base must finish, .* lower training\.learn"):
        sculpt.run(path)


@pytest.mark.slow
def test_a_candidate_too_large_for_the_device_is_infeasible(tmp_path, monkeypatch):
    """The study goes on, and reaches its total, for the point is not drawn again."""

    def small_device(setup: TrialSetup, splits: Splits, *arguments):
        with within_memory(splits.train.device):
            if setup.role == "candidate" and setup.study.model.options["widening"] == 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return run_seed(setup, splits, *arguments)

    monkeypatch.setattr("sculpt.search.workers.worker.run_seed", small_device)
    space = {"widening": [2, 3], "blocks": [1]}
    path = write_study(
        tmp_path, space__parameters=space, search__trials="all", search__replicates=1
    )
    results = sculpt.run(path)
    assert results.tally() | {"total": 3, "complete": 2, "infeasible": 1} == results.tally()
    trials = results.trials.set_index("params.widening")
    assert trials.loc[3, "state"] == "infeasible"
    assert "must fit into the memory of cpu" in trials.loc[3, "error"]
    assert sculpt.run(path).tally() == results.tally()


@pytest.mark.slow
def test_when_the_base_fails_so_does_the_run_and_it_can_be_tried_again(tmp_path, monkeypatch):
    path = write_study(tmp_path, search__trials=2, search__replicates=1)
    with monkeypatch.context() as patch:
        patch.setattr("sculpt.search.workers.worker.run_seed", lambda *a, **k: 1 / 0)
        with pytest.raises(SculptError, match="base must finish, but failed: ZeroDivisionError"):
            sculpt.run(path)
    results = sculpt.run(path)
    assert results.tally()["complete"] == 2
    assert results.tally()["failed"] == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sculpt.errors.SculptWarning")
def test_when_every_candidate_fails_so_does_the_run(tmp_path):
    path = write_study(
        tmp_path,
        space__parameters={"pruning.initializer": [DRY], "widening": [2]},
        search__trials=2,
        search__replicates=1,
        training__epochs=2,
    )
    with pytest.raises(SculptError, match="a candidate must finish, but all failed; the last: Dry"):
        sculpt.run(path)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": {"name": "image_folder", "root": "/no/such/folder"}}, DataError),
        ({"data": {"name": "mnist", "root": "/no/such/folder"}}, DataError),
        ({"data__train_images": 10**6}, DataError),
        ({"budget": 10**9}, InputError),
        ({"training__precision": "tf32"}, InputError),
    ],
)
def test_nothing_is_written_for_a_study_that_cannot_run(tmp_path, changes, error):
    path = write_study(tmp_path, **changes)
    with pytest.raises(error):
        sculpt.run(path, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(InputError, match="--device must be auto, cpu"):
        sculpt.run(write_study(tmp_path), device="abacus")
    with pytest.raises(InputError, match="--device must be auto, cpu"):
        sculpt.run(write_study(tmp_path), device="cuda:99")


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3])
def test_an_interrupted_trial_is_run_again(tmp_path, epochs):
    path = write_study(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sculpt.run(path, watcher=Interrupt(epochs))
    kept = sculpt.open_results(path).complete
    interrupted = sculpt.open_results(path).trials.query("state == 'interrupted'")
    assert len(interrupted) == 1
    results = sculpt.run(path)
    tally = results.tally()
    assert (tally["complete"], tally["interrupted"], tally["failed"]) == (4, 1, 0)
    assert len(set(configurations(results))) == len(configurations(results)) == 3
    parameters = interrupted.filter(like="params.").to_dict("records")
    if epochs > 1:  # the first is the base's
        again = results.complete.filter(like="params.").to_dict("records")
        assert parameters[0] in again
    now = results.complete.set_index("trial")["val_errors"]
    assert now.loc[kept["trial"]].to_list() == kept["val_errors"].to_list()


@pytest.mark.slow
def test_a_trial_is_gone_on_with_by_as_many_threads(tmp_path):
    """Sums that are split in another way differ in their last digits, and then so does all else."""
    path = write_study(tmp_path, training__epochs=4, search__trials=2, search__replicates=1)
    seen = []

    class Threads(Interrupt):
        def epoch_finished(self, epoch):
            seen.append(torch.get_num_threads())
            super().epoch_finished(epoch)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyboardInterrupt):
            sculpt.run(path, watcher=Threads(2))
        torch.set_num_threads(1)
        results = sculpt.run(path, watcher=Threads(10**6))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    # Two epochs of the base are told again; the candidate is begun by the second run.
    assert seen == [2] * 2 + [2] * 4 + [1] * 4
    assert results.record("base")["runs"][0]["training"]["resumed_at"] == [2]


class TakenOver(Watcher):
    """Does what another worker does when this one is silent for too long: fails its trial."""

    def __init__(self, path):
        self.path = path
        self.done = False

    def epoch_finished(self, epoch):
        store = open_store(self.path)
        for trial in store.candidates.get_trials(deepcopy=False):
            if trial.state is TrialState.RUNNING and not self.done:
                self.done = True
                store.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


@pytest.mark.slow
def test_a_worker_that_wakes_too_late_does_not_spoil_the_study(tmp_path):
    path = write_study(tmp_path, search__replicates=1)
    watcher = TakenOver(path)
    results = sculpt.run(path, watcher=watcher)
    assert watcher.done
    tally = results.tally()
    assert (tally["complete"], tally["interrupted"], tally["failed"]) == (4, 1, 0)
    assert len(set(configurations(results))) == len(configurations(results)) == 3


class SwallowedInterrupt(Watcher):
    """Presses Ctrl-C where Python swallows it: in the callback of a weak reference."""

    def __init__(self):
        self.epochs = 0

    def epoch_finished(self, epoch):
        self.epochs += 1
        if self.epochs == 1:
            target = threading.Event()
            callback = weakref.ref(target, lambda _: signal.raise_signal(signal.SIGINT))
            del target
            assert callback() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_interrupt_still_stops_the_run(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    path = write_study(tmp_path)
    watcher = SwallowedInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sculpt.run(path, watcher=watcher)
    assert watcher.epochs == 1
    assert signal.getsignal(signal.SIGINT) is before, "handlers must be put back"


@pytest.mark.slow
def test_a_run_that_is_terminated_goes_on_to_the_exact_total(tmp_path):
    path = write_study(tmp_path, search__trials=5, search__grace_seconds=2, training__epochs=16)
    command = [sys.executable, "-m", "sculpt", "run", str(path)]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        kept = wait_for_a_trial_in_progress(path, running)
        os.kill(running.pid, signal.SIGTERM)
        _, printed = running.communicate(timeout=300)
        assert running.returncode == 130, printed
        assert "the same command goes on" in printed
    finally:
        running.kill()
        running.wait()
    results = sculpt.run(path)
    tally = results.tally()
    assert (tally["total"], tally["complete"], tally["interrupted"]) == (5, 5, 1)
    assert tally["failed"] == tally["running"] == tally["queued"] == 0
    assert len(set(configurations(results))) == len(configurations(results)) == 4
    for trial, record in kept.items():
        assert results.record(trial) == record, "a finished trial must stay as it was"


def wait_for_a_trial_in_progress(path, running: subprocess.Popen[str]):
    """Wait until a trial is running and two are finished; return the records of those."""
    deadline = time.monotonic() + 300
    kept: dict[Any, Any] = {}
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.2)
        try:
            results = sculpt.open_results(path)
        except InputError:  # not made yet
            continue
        table = results.trials
        done = table[table["state"] == "complete"] if len(table) else table
        if not kept and len(done) >= 2:
            kept = {trial: results.record(trial) for trial in done["trial"]}
        elif kept and "running" in set(table["state"]):
            return kept  # nothing between this look and the signal: the trial must still run
    running.kill()
    raise AssertionError(f"no trial was seen running: {running.communicate()}")


@pytest.mark.slow
def test_reading_while_another_process_adds_a_trial(finished, monkeypatch):
    _, results = finished
    candidates = results._store.candidates
    all_trials = read_trials(candidates, results.store.storage)
    reads = []

    def one_more_at_each_read(study: optuna.Study, storage):
        if study is not candidates:
            return read_trials(study, storage)
        reads.append(1)
        return all_trials[: len(reads)]

    monkeypatch.setattr("sculpt.results.records.read_trials", one_more_at_each_read)
    assert list(results.trials["trial"]) == ["base", 0]
    assert results.record(0)["state"] == "complete"


@pytest.mark.slow
def test_two_runs_share_a_study(tmp_path):
    """Two processes started at once: one total, no configuration twice, no lock error."""
    path = write_study(tmp_path, search__trials=5, search__replicates=1, search__grace_seconds=30)
    command = [sys.executable, "-m", "sculpt", "run", str(path), "--json"]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    results = sculpt.open_results(path)
    assert results.tally()["complete"] == 5
    assert results.tally()["failed"] == 0
    assert len(set(configurations(results))) == len(configurations(results)) == 4


def test_a_space_without_further_points_ends_the_run(tmp_path, monkeypatch):
    from sculpt.search.workers import worker

    monkeypatch.setattr(worker, "MOST_INFEASIBLE", 5)
    path = write_study(
        tmp_path,
        search__trials=9,
        space__parameters={"widening": {"low": 1.0, "high": 900.0}},
        space__constraints={"max_dense_parameters": 10_000},
    )
    with pytest.raises(SculptError, match=r"5 draws in a row were none.*lower search\.trials"):
        sculpt.run(path)
