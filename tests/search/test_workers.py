"""Several workers on one machine: real processes, exact totals, and nothing left behind."""

import io
import itertools
import os
import re
import signal
import subprocess
import sys
from multiprocessing import Pipe
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from rich.console import Console

import sculpt
from sculpt.errors import InputError, LostDeviceError, SculptError
from sculpt.search.progress import LiveView, Watcher
from sculpt.search.session import Session, _run_trials
from sculpt.search.workers import concurrency
from sculpt.search.workers.concurrency import Concurrency
from sculpt.search.workers.devices import answers, choose_devices
from sculpt.search.workers.worker import pause
from studies import check_complete, write_study


class Recorder(Watcher):
    """Keeps which worker trained which trial."""

    def __init__(self) -> None:
        self.worker = 0
        self.workers: dict[int | str, int] = {}
        self.epochs = 0
        self.finished: list[int | str] = []

    def from_worker(self, number: int) -> None:
        self.worker = number

    def trial_started(self, label: int | str, params: dict[str, Any], epochs: int) -> None:
        self.workers[label] = self.worker

    def epoch_finished(self, epoch: object) -> None:
        self.epochs += 1

    def trial_finished(
        self, label: int | str, val_error: float | None, problem: str | None
    ) -> None:
        assert self.workers[label] == self.worker
        self.finished.append(label)


@pytest.mark.slow
def test_two_at_a_time_reach_the_exact_total(tmp_path):
    path = write_study(tmp_path, search__trials=5, training__epochs=8)
    watcher = Recorder()
    results = sculpt.run(path, watcher=watcher, device="cpu", trials_per_device=2)
    check_complete(path, 5)
    store = results._store
    trials = store.base.get_trials() + store.candidates.get_trials()
    assert any(
        one.datetime_start < other.datetime_complete
        and other.datetime_start < one.datetime_complete
        for one, other in itertools.combinations(trials, 2)
    ), "no two trials ran at the same time"
    assert set(watcher.workers.values()) == {1, 2}
    assert sorted(map(str, watcher.finished)) == ["0", "1", "2", "3", "base"]
    assert watcher.epochs == 5 * 8
    # Arithmetic depends on the number of threads: the base is compared with the candidates.
    threads = {results.record(label)["device"]["threads"] for label in watcher.finished}
    assert len(threads) == 1
    again = Recorder()
    sculpt.run(path, watcher=again, device="cpu,cpu")
    assert not again.finished


def test_workers_are_dealt_out_to_the_devices_in_turn(monkeypatch):
    devices = [torch.device("cpu"), torch.device("meta")]
    session = object.__new__(Session)  # of a study that is of no account here
    session.devices = devices
    assert [session.device_of(number).type for number in range(5)] == [
        *("cpu", "cpu", "meta", "cpu", "meta")
    ]
    assert choose_devices("cpu, cpu", several=False) == [torch.device("cpu")] * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    found = choose_devices("auto", several=True)
    assert [str(device) for device in found] == ["cuda:0", "cuda:1", "cuda:2"]
    # One by itself has its number, too: torch.cuda.set_device refuses a device without one.
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_devices("auto", several=False) == [torch.device("cuda", 0)]


@pytest.fixture
def start(tmp_path):
    """Start `sculpt run` with two workers, as the leader of a group of processes."""
    started: list[subprocess.Popen[str]] = []

    def start_one(path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "sculpt", "run", str(path), "--workers", "2"]
        command += ["--device", "cpu,cpu"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **pipes)
        started.append(running)
        return running

    yield start_one
    for process in started:
        for pid in group(process):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def group(leader: subprocess.Popen[str]) -> list[int]:
    """Return the processes that a run consists of, without those that only wait to be reaped."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, members_of = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it ended meanwhile
            continue
        if int(members_of) == leader.pid and state != "Z":
            found.append(int(status.parent.name))
    return found


def workers(leader: subprocess.Popen[str]) -> list[int]:
    """Return the processes in which the candidates of a run are trained: forks of one other."""
    found = group(leader)
    stats = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in found}
    command = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in found}
    forks = [pid for pid in found if "forkserver" in command[pid]]
    return [pid for pid in forks if int(stats[pid][1]) in forks]


def both_are_busy(path: Path) -> bool:
    try:
        table = sculpt.open_results(path).trials
    except InputError:  # not made yet
        return False
    # With parameters: one that is claimed and no more is left to the next heartbeat when stopped.
    if table.empty:
        return False
    running = table[table["state"] == "running"].filter(like="params.").dropna()
    return not running.columns.empty and len(running) == 2


@pytest.mark.slow
def test_killed_workers_are_replaced_and_lose_no_trial(tmp_path, start, wait_until):
    path = write_study(tmp_path, search__trials=4, training__epochs=24)
    running = start(path)
    wait_until(lambda: both_are_busy(path))
    before = workers(running)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(set(workers(running)) - set(before)) == 2)
    _, printed = running.communicate(timeout=300)
    assert len(re.findall(r"^worker \d was killed \(SIGKILL\)", printed, re.MULTILINE)) == 2
    assert "Traceback" not in printed
    assert running.returncode == 0, printed
    # One trial may end between the look and the kill.
    assert check_complete(path, 4).tally()["interrupted"] in (1, 2)


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("sculpt.search.session.MOST_REPLACEMENTS", 1)
    (tmp_path / "deadly.py").write_text(
        "import multiprocessing, os, signal\n"
        "if multiprocessing.parent_process(): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write_study(tmp_path, plugins=["deadly"], search__trials=3, search__replicates=1)
    console = Console(file=io.StringIO(), width=200)
    with pytest.raises(SculptError, match="a worker must live to the end, but all 2 died"):
        sculpt.run(path, watcher=LiveView(console), device="cpu", workers=2)
    assert console.file.getvalue().count("was killed (SIGKILL)") == 2 * 2


def test_a_device_answers_until_cuda_repeats_an_error(monkeypatch):
    def fail(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert answers(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    assert answers(torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert not answers(torch.device("cuda", 0))


def test_a_run_ends_with_its_device_and_goes_on_in_another_process(tmp_path, monkeypatch):
    """The trial that lost it is tried again, and no later one fails by it."""
    path = write_study(tmp_path, search__trials=2, search__replicates=1, training__epochs=1)
    told = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr("sculpt.search.workers.worker.run_seed", lambda *_: 1 / 0)
        patch.setattr("sculpt.search.workers.worker.answers", lambda device: False)
        with pytest.raises(LostDeviceError, match=r"cpu must compute again .* the same command"):
            sculpt.run(path, watcher=told, device="cpu")
    assert (list(told.workers), told.finished) == (["base"], [])
    tally = sculpt.run(path, device="cpu").tally()
    assert (tally["complete"], tally["failed"]) == (2, 0)


def test_a_worker_whose_device_is_lost_ends_to_be_replaced():
    class Lost:
        total = None

        def worker(self, *_):
            raise LostDeviceError("it does not compute")

    ours, theirs = Pipe()
    with pytest.raises(SystemExit, match="it does not compute"):
        _run_trials(theirs, 1, Lost())
    assert not ours.poll()  # an error that is sent would end the whole run


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process_and_goes_on(tmp_path, start, wait_until, stop):
    path = write_study(tmp_path, search__trials=4, training__epochs=24)
    running = start(path)
    wait_until(lambda: both_are_busy(path))
    if stop is signal.SIGINT:
        os.killpg(running.pid, stop)  # as a terminal does
    else:
        os.kill(running.pid, stop)
    _, printed = running.communicate(timeout=300)
    assert "Traceback" not in printed
    if stop is signal.SIGINT:
        assert running.returncode == 130
        assert "the same command goes on" in printed
    wait_until(lambda: not group(running))
    tally = sculpt.open_results(path).tally()
    stopped = tally["interrupted"]
    assert stopped in (1, 2)  # one may end between the look and the signal
    assert (tally["running"], tally["queued"]) == (0, stopped)
    sculpt.run(path)
    assert check_complete(path, 4).tally()["interrupted"] == stopped


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        ("sculpt.errors.DataError('no images here')", InputError, "^no images here$"),
        pytest.param(
            *("IndexError('a defect')", SculptError, "a worker must not fail, but did: .*a defect"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_a_worker_raises_reaches_the_caller(tmp_path, monkeypatch, raised, error, message):
    (tmp_path / "only_here.py").write_text(
        "import multiprocessing, sculpt.errors, sculpt.search.session\n"
        f"def fail(config): raise {raised}\n"
        "if multiprocessing.parent_process(): sculpt.search.session.make_sampler = fail\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = write_study(tmp_path, plugins=["only_here"], search__trials=3, search__replicates=1)
    with pytest.raises(error, match=message):
        sculpt.run(path, trials_per_device=2)


@pytest.mark.slow
def test_auto_measures_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "hasty.py").write_text(
        "from sculpt.search.workers import concurrency\nconcurrency.MEASURED_SECONDS = 0.2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(concurrency, "MEASURED_SECONDS", 0.2)  # put back, and hasty does the rest
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # or more and more of them are measured
    path = write_study(tmp_path, plugins=["hasty"], search__trials=2, search__replicates=1)
    console = Console(file=io.StringIO(), width=200)
    sculpt.run(path, watcher=LiveView(console), trials_per_device="auto")
    check_complete(path, 2)
    rates = r"1: [\d,]+, 2: [\d,]+ images/s together -> [12]"
    assert re.search(f"^trials per device: {rates}$", console.file.getvalue(), re.MULTILINE)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 104.0}, 1),
        ({1: 100.0, 2: 160.0}, 2),
        ({1: 100.0, 2: 160.0, 4: 165.0}, 2),
        ({1: 100.0, 2: 160.0, 4: 200.0, 8: 90.0}, 4),
    ],
)
def test_more_at_a_time_must_be_worth_it(rates, best):
    assert Concurrency(rates).best == best
    assert str(Concurrency(rates)).endswith(f" images/s together -> {best}")


@pytest.mark.parametrize("given", [0, -1, "many", 1.5, None, True])
def test_no_other_numbers(tmp_path, given):
    path = write_study(tmp_path)
    with pytest.raises(InputError, match="must be a whole number of at least 1, or auto, but got"):
        sculpt.run(path, trials_per_device=given)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("given", [0, -1, "many", 1.5, True, "auto"])
def test_no_other_workers(tmp_path, given):
    with pytest.raises(InputError, match="--workers must be a whole number of at least 1, but got"):
        sculpt.run(write_study(tmp_path), workers=given)


def test_their_number_is_given_once(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    with pytest.raises(InputError, match="got both --workers 2 and --trials-per-device 3; leave"):
        sculpt.run(path, workers=2, trials_per_device=3)
    for command in ("run", "worker"):
        options = ["--workers", 2, "--trials-per-device", 1]
        code, _, error = sculpt_command(command, path, *options)
        assert (code, "must be given once" in error) == (2, True)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_the_view_keeps_trials_apart():
    console = Console(file=io.StringIO(), width=200)
    view = LiveView(console)
    view.run_started(4, 1)
    for worker, widening in ((1, 2), (2, 3)):
        view.from_worker(worker)
        view.trial_started(worker - 1, {"widening": widening}, 2)
    view.from_worker(1)
    view.trial_finished(0, 0.25, None)
    view.worker_lost("worker 1 was killed")
    view.from_worker(2)
    view.worker_lost("worker 2 was killed")
    view.run_finished()
    lines = console.file.getvalue().splitlines()
    assert re.fullmatch(r"trial 0 widening 2: val error 25.00% \(0.\d s\)", lines[1])
    assert lines[2:] == [
        "worker 1 was killed",
        "worker 2 was killed; trial 1 widening 3 is run again",
    ]


@pytest.mark.parametrize(("waited", "seconds"), [(0, 1), (5, 1), (40, 4), (1000, 15)])
def test_a_worker_looks_the_less_often_the_longer_it_has_waited(waited, seconds):
    pauses = [pause(waited) for _ in range(500)]
    assert seconds / 2 <= min(pauses) <= max(pauses) <= seconds * 1.5
    assert mean(pauses) == pytest.approx(seconds, rel=0.1)
    assert len(set(pauses)) > 400  # or a thousand workers would look at one moment
