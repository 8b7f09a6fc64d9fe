"""Workers that are killed at random, a server that is restarted: nothing lost, nothing twice."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState
from postgres import Server

import sculpt
from sculpt.storage.attributes import INFEASIBLE
from sculpt.storage.trials import original_number
from studies import write_study

TRIALS, WORKERS, KILLS = 16, 4, 6
DOWN_SECONDS = 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_nothing_is_lost_and_nothing_is_done_twice(
    tmp_path, monkeypatch, request, wait_until, engine
):
    monkeypatch.chdir(tmp_path)  # records lie in `runs` here
    path = write_study(
        tmp_path,
        data__train_images=100,
        model={"name": "mlp", "layers": 2, "units": 16},
        space={"parameters": {"units": {"low": 20, "high": 99}}},
        search__trials=TRIALS,
        search__replicates=1,
        search__grace_seconds=4,
    )
    if engine == "postgres":
        url = request.getfixturevalue("postgres_url")
        text = path.read_text().replace(str(tmp_path / "tiny.db"), url)
        path.write_text(text)
    script = Path(__file__).with_name("chaos_parent.py")
    arguments = [path, tmp_path, WORKERS, KILLS, 20]
    command = [sys.executable, "-W", "ignore", str(script), *map(str, arguments)]
    parent = subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        if engine == "postgres":
            finished = tmp_path / "finished"
            wait_until(
                lambda: (
                    parent.poll() is not None
                    or (finished.exists() and finished.read_text().count("\n") >= TRIALS // 2)
                )
            )
            server: Server = request.getfixturevalue("server")
            server.stop()
            time.sleep(DOWN_SECONDS)
            server.start()
        printed, own_errors = parent.communicate(timeout=500)
    finally:
        parent.kill()
    errors = (tmp_path / "errors").read_text()
    assert (printed, own_errors, errors) == (f"killed {KILLS}\n", "", "")
    check(path)


def check(path: Path) -> None:
    """Check that a study is whole, and that each of its trials ran to the end exactly once."""
    results = sculpt.open_results(path)
    tally = results.tally()
    assert (tally["total"], tally["complete"]) == (TRIALS, TRIALS), tally
    assert tally["failed"] == tally["running"] == tally["queued"] == 0, tally
    ends: Counter[int] = Counter()
    configurations = []
    trials = results._store.candidates.get_trials(deepcopy=False)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    for trial in trials:
        if trial.state is TrialState.COMPLETE:
            ends[original_number(trial)] += 1
            configurations.append(json.dumps(trial.params))
            assert results.record(trial.number)["params"] == trial.params
    wanted = {original_number(t) for t in trials} - {
        original_number(t) for t in trials if INFEASIBLE in t.user_attrs
    }
    assert ends == Counter(wanted)
    assert len(set(configurations)) == len(configurations) == TRIALS - 1
    results._store.storage.close()
