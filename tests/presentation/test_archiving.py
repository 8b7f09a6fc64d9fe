"""An archive of a study answers like the study itself, and goes to a folder as a whole."""

import json
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rigged import add_trial, attributes, results_of, rigged_store

import sculpt
from sculpt.errors import InputError, StorageError
from sculpt.presentation import details
from sculpt.presentation.archiving import archive
from sculpt.presentation.content import collect
from sculpt.presentation.dashboard.annotations import annotate
from sculpt.presentation.parameter_figures import parameter_figures
from sculpt.results.pareto import pareto_document
from sculpt.results.ranking import rank
from sculpt.results.records import Results, open_results
from sculpt.storage.archive import writing
from sculpt.storage.opening import open_store
from studies import write_study

PLACES = ("storage", "artifacts")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A study of three candidates, of which early stopping has ended one."""
    folder = tmp_path_factory.mktemp("stopped")
    path = write_study(
        folder,
        artifacts=str(folder / "kept here"),
        diagnostics__jacobian_images=2,
        training__epochs=3,
        search__replicates=2,
        space__parameters={"widening": [2], "training.learning_rate": [0.1, 0.2, 0.0001]},
        search__sampler="grid",
        search__early_stopping={"factor": 2, "objectives": ["val_error"]},
    )
    results = sculpt.run(path)
    assert results.tally()["stopped"] >= 1
    results.keep_latency(0, 0.001, "torch, 1 image")
    return results


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    """A study whose best candidate and base were trained again."""
    path = write_study(
        tmp_path_factory.mktemp("confirmed"),
        training__protocol="lowest_test",
        published={
            "source": "Nobody 2020",
            "figures": ["test_error"],
            "rows": [
                {"params": "base", "test_error": 0.1},
                {"params": {"widening": 2, "blocks": 1}, "test_error": 0.09},
            ],
        },
        search__trials=3,
        search__confirm={"top": 1, "seeds": 2, "control": "shuffled"},
    )
    return sculpt.run(path)


@pytest.fixture(params=["stopped", pytest.param("confirmed", marks=pytest.mark.slow)])
def study(request):
    results: Results = request.getfixturevalue(request.param)
    return results


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def answers(results: Results) -> dict[str, Any]:
    """Return all that a study is asked, as JSON: order counts, and numbers are exactly equal."""
    content = collect(results)
    # Columns are functions; what stands in them is data.
    verdict = [content.verdict.headline, content.verdict.facts.cells]
    report: Any = replace(content, ranking=content.ranking.cells, verdict=verdict)
    objectives = ["val_error", "kept_macs"]
    found = {
        "tally": results.tally(),
        "images": results.images,
        "fingerprint": results.config.fingerprint(),
        "confirmed": results.confirmed,
        "ranking": rank(results),
        "front": pareto_document([results], objectives),
        "report": asdict(report),
        "figures": parameter_figures(content, results.config),
        "records": [shown(results, trial) for trial in ["best", *results.trials["trial"]]],
    }
    return {key: json.dumps(document, default=asdict) for key, document in found.items()}


def shown(results: Results, trial: int | str) -> dict[str, Any]:
    """Return a record without the places in its settings."""
    record = results.record(trial)
    if "config" in record:
        record["config"] = {k: v for k, v in record["config"].items() if k not in PLACES}
    return record


def test_it_answers_like_the_study(study, tmp_path):
    archive(study, tmp_path / "made")
    archived = open_results(tmp_path / "made")
    assert archived.trials.equals(study.trials)
    assert list(archived.trials) == list(study.trials)
    assert archived.confirmation.equals(study.confirmation)
    assert answers(archived) == answers(study)


def test_what_was_measured_afterwards_and_what_stopped_a_trial_is_told(stopped, tmp_path):
    archive(stopped, tmp_path / "made")
    archived = open_results(tmp_path / "made")
    assert archived.record(0)["latency"] == 0.001
    number = int(stopped.trials.query("state == 'stopped'")["trial"].iloc[0])
    assert "is beaten by" in archived.record(number)["error"]
    assert archived.record(number)["rungs"] == stopped.record(number)["rungs"] != {}


def test_the_same_results_give_the_same_bytes(study, tmp_path):
    archive(study, tmp_path / "one")
    archive(study, tmp_path / "two")
    archive(str(tmp_path / "one"), tmp_path / "three")
    files = files_of(tmp_path / "one")
    assert {"study.json", "base.jsonl", "candidates.jsonl", "records/base.json"} < set(files)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "three") == files
    assert all(text.endswith(b"\n") and text.isascii() for text in files.values())


def test_nothing_of_this_machine_stands_in_it(study, tmp_path):
    archive(study, tmp_path / "made", records="all")
    text = b"".join(files_of(tmp_path / "made").values()).decode()
    store = study.store
    assert "/tiny.db" in store.config.storage_url
    for place in (str(Path(store.artifacts.location).parent), "/tmp", "tiny.db", "kept here"):
        assert place not in text
    assert socket.gethostname() not in text


def test_a_record_has_a_line_for_each_seed(stopped, tmp_path):
    archive(stopped, tmp_path / "made")
    lines = (tmp_path / "made" / "records" / "base.json").read_text().splitlines()
    assert sum(line.startswith('{"seed"') or '"history"' in line for line in lines) == 2
    assert lines[0] == "{"
    assert lines[-1] == "}"
    assert json.loads("\n".join(lines)).keys() | {"state"} == stopped.record("base").keys()


@pytest.mark.slow
def test_asking_it_needs_no_torch(stopped, tmp_path):
    archive(stopped, tmp_path / "made")
    code = (
        "import sys, sculpt; results = sculpt.open_results(sys.argv[1]); sculpt.rank(results); "
        "results.record('base'); print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_its_networks_are_compared(stopped, tmp_path):
    archive(stopped, tmp_path / "made")
    storage = stopped.config.storage_url
    made = str(tmp_path / "made")
    expected = json.dumps(sculpt.compare(["tiny:base", "tiny"], storage))
    assert json.dumps(sculpt.compare([f"{made}:base", made])) == expected
    # Beside a study that is named with its storage.
    assert json.dumps(sculpt.compare([f"{made}:base", "tiny"], storage)) == expected


@pytest.mark.slow
def test_which_records_it_has_is_chosen(confirmed, tmp_path):
    names = {}
    for choice in ("report", "all", "none"):
        archive(confirmed, tmp_path / choice, records=choice)
        names[choice] = {f for f in files_of(tmp_path / choice) if f.startswith("records")}
    assert names["report"] == names["all"] == {f"records/{n}.json" for n in ("base", 0, 1)}
    assert names["none"] == set()
    archived = open_results(tmp_path / "none")
    assert json.dumps(rank(archived)["ranking"]) == json.dumps(rank(confirmed)["ranking"])
    with pytest.raises(StorageError, match=r"none has no records/1\.json.*--records all"):
        archived.record(1)
    with pytest.raises(InputError, match="records must be one of report, all, none"):
        archive(confirmed, tmp_path / "x", records="some")


@pytest.mark.slow
def test_what_a_ranking_reads_is_there_even_if_no_report_shows_it(confirmed, tmp_path, monkeypatch):
    monkeypatch.setattr(details, "MOST_RECORDS", 1)
    archive(confirmed, tmp_path / "made")
    assert {path.stem for path in (tmp_path / "made" / "records").iterdir()} == {"base", "0", "1"}
    archived = open_results(tmp_path / "made")
    assert rank(archived)["published"]["unread"] == []
    assert json.dumps(rank(archived)) == json.dumps(rank(confirmed))


def test_the_dashboard_writes_nothing_into_it(stopped, tmp_path):
    archive(stopped, tmp_path / "made")
    before = files_of(tmp_path / "made")
    store = open_store(tmp_path / "made")
    annotate(store)
    attributes = store.storage.get_study_system_attrs(store.candidates._study_id)
    assert any(key.startswith("dashboard:note") for key in attributes)
    (plot,) = [json.loads(v) for k, v in attributes.items() if k.startswith("artifacts:")][:1]
    with store.artifacts.open_reader(plot["artifact_id"]) as reader:
        assert reader.read().startswith(b"\x89PNG")
    assert files_of(tmp_path / "made") == before


@pytest.mark.parametrize(
    "wrong",
    [
        lambda folder, results: sculpt.run(folder),
        lambda folder, results: sculpt.join(folder),
        lambda folder, results: sculpt.export_trial(results, "best", folder.parent / "out"),
        lambda folder, results: sculpt.latency(folder.parent / "out", results),
        lambda folder, results: results.copy_network("best", folder.parent / "out"),
        lambda folder, results: results.keep_latency("base", 1.0, "guessed"),
    ],
)
def test_what_needs_networks_or_workers_is_refused(wrong, stopped, tmp_path):
    folder = tmp_path / "made"
    archive(stopped, folder)
    with pytest.raises(InputError, match="made is an archive, which holds results and no networks"):
        wrong(folder, open_results(folder))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_unfinished_trials_are_told_as_such(tmp_path):
    store = rigged_store(tmp_path / "study")
    add_trial(store.base, attributes([0.2, 0.3], "base"))
    add_trial(store.candidates, attributes([0.1, 0.2]), {"widening": 2})
    add_trial(store.candidates, {"rungs": {"1": 0.5}}, {"widening": 3}, TrialState.RUNNING)
    store.candidates.enqueue_trial({"widening": 4})
    add_trial(store.candidates, {"error": "ValueError: no"}, {"widening": 5}, TrialState.FAIL)
    add_trial(store.candidates, attributes([0.3, 0.2]), {"widening": 6})
    archive(results_of(store), tmp_path / "made", records="none")
    archived = open_results(tmp_path / "made")
    assert archived.trials["trial"].tolist() == ["base", 0, 1, 2, 3, 4]
    states = ["complete", "complete", "interrupted", "queued", "failed", "complete"]
    assert archived.trials["state"].tolist() == states
    tally = archived.tally()
    assert (tally["running"], tally["interrupted"], tally["queued"]) == (0, 1, 2)
    assert archived.record(1)["params"] == {"widening": 3}
    archive(archived, tmp_path / "again", records="none")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "made")


def test_an_older_archive_is_replaced_as_a_whole(tmp_path):
    store = rigged_store(tmp_path / "study")
    results, folder = results_of(store), tmp_path / "deep" / "made"
    archive(results, folder, records="none")
    (folder / "records").mkdir()
    (folder / "records" / "7.json").write_text("of a trial that is gone")
    add_trial(store.base, attributes([0.2, 0.3], "base"))
    archive(results, folder, records="none")
    assert sorted(files_of(folder)) == ["base.jsonl", "candidates.jsonl", "study.json"]
    assert len(open_results(folder).trials) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["made"]


def test_a_writer_that_dies_leaves_the_older_one(tmp_path, monkeypatch):
    store = rigged_store(tmp_path / "study")
    add_trial(store.base, attributes([0.2, 0.3], "base"))
    archive(results_of(store), tmp_path / "made", records="none")
    before = files_of(tmp_path / "made")
    add_trial(store.candidates, attributes([0.1]), {"widening": 2})
    monkeypatch.setattr(
        writing.ArchivedTrial, "of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        archive(results_of(store), tmp_path / "made", records="none")
    assert files_of(tmp_path / "made") == before
    assert {path.name for path in tmp_path.iterdir()} == {"made", "study"}
    # Nor does one that cannot read a record: here there are none at all.
    monkeypatch.undo()
    with pytest.raises(StorageError, match=r"record\.json of trial 0"):
        archive(results_of(store), tmp_path / "made")
    assert files_of(tmp_path / "made") == before


def test_other_folders_are_left_alone(tmp_path):
    results = results_of(rigged_store(tmp_path / "study"))
    other = results_of(rigged_store(tmp_path / "other", study="other"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "study.json").write_text("{}")
    archive(other, tmp_path / "others", records="none")
    archive(results, tmp_path / "own", records="none")
    (tmp_path / "own" / "README.md").write_text("mine")
    before = files_of(tmp_path)
    for folder, reason in {
        "mine": r"holds notes\.txt",
        "file": "is a file",
        "foreign": "is none",
        "others": "is one of the study 'other'",
        "own": r"holds README\.md",
    }.items():
        with pytest.raises(InputError, match=rf"archive of 'tiny' must go to.*{folder} {reason}"):
            archive(results, tmp_path / folder, records="none")
    assert {k: v for k, v in files_of(tmp_path).items() if k in before} == before
    (tmp_path / "empty").mkdir()
    archive(results, tmp_path / "empty", records="none")
    assert open_results(tmp_path / "empty").tally()["total"] == 99


def test_the_commands(stopped, tmp_path, monkeypatch, sculpt_command):
    monkeypatch.chdir(tmp_path)
    storage = stopped.config.storage_url
    code, out, err = sculpt_command("archive", "tiny", "--storage", storage)
    assert (code, out, err) == (0, "", "archive: results/tiny\n")
    folder = "results/tiny"
    for command in ("status", "rank", "pareto"):
        code, told, _ = sculpt_command(command, folder, "--json")
        assert code == 0
        assert told == sculpt_command(command, "tiny", "--storage", storage, "--json")[1]
    code, told, _ = sculpt_command("show", folder, "best", "--json")
    assert (code, json.loads(told)["state"]) == (0, "complete")
    code, told, _ = sculpt_command("compare", f"{folder}:base", f"{folder}:0", "--json")
    assert (code, len(json.loads(told)["networks"])) == (0, 2)
    assert sculpt_command("report", folder)[0] == 0
    assert (tmp_path / "tiny-report.html").exists()
    # A bare name is a folder's, too, unless it is said where the study is kept.
    monkeypatch.chdir("results")
    assert sculpt_command("status", "tiny")[0] == 0
    for arguments in (["run", "tiny"], ["check", "tiny"], ["worker", "tiny"], ["export", "tiny"]):
        code, out, err = sculpt_command(*arguments)
        assert (code, out) == (2, "")
        assert "tiny is an archive" in err
        assert len(err.splitlines()) == 1
    code, _, err = sculpt_command("archive", "tiny", "--output", "..")
    assert code == 2
    assert "must go to a new folder" in err
