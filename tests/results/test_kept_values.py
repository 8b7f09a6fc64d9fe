"""What is kept of a trial, edited: one message that names it, from every command that reads it."""

import json
import os
import subprocess
import sys

import pytest
from rigged import add_trial, attributes, rigged_store

import sculpt
from sculpt.errors import StorageError
from sculpt.results.kept_values import OF_COMPLETE, OF_CONFIRMATION, check_kept

COMMANDS = {
    "rank": ["rank"],
    "rank to a file": ["rank", "--format", "csv"],
    "pareto": ["pareto"],
    "show": ["show", "best"],
    "report": ["report"],
    "archive": ["archive"],
    "export": ["export"],
}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """An archive of a base and a candidate, without records."""
    store = rigged_store(tmp_path / "study")
    add_trial(store.base, attributes([0.2, 0.3], "base"))
    add_trial(store.candidates, attributes([0.1, 0.2]), {"widening": 2})
    results = sculpt.open_results("tiny", store.config.storage_url)
    monkeypatch.chdir(tmp_path)
    return sculpt.archive(results, tmp_path / "archived", records="none")


def edit(archive, **changes):
    """Change what is kept of the candidate; ... leaves it out."""
    path = archive / "candidates.jsonl"
    trial = json.loads(path.read_text())
    kept = trial["user_attrs"] | changes
    trial["user_attrs"] = {key: value for key, value in kept.items() if value is not ...}
    path.write_text(json.dumps(trial) + "\n")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kept_macs": "many"}, "its kept_macs is 'many'"),
        ({"val_errors": [0.1, "x"]}, "its val_errors.1 is 'x'"),
        ({"seconds": ...}, "its seconds is missing"),
    ],
)
def test_commands_name_it(command, changes, message, archive, sculpt_command):
    edit(archive, **changes)
    name, *rest = COMMANDS[command]
    code, out, err = sculpt_command(name, archive, *rest)
    if name == "export":  # which refuses archives anyway
        message = "a network must come from the study"
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", OF_COMPLETE)
@pytest.mark.parametrize("value", ["1", [], {}, True, float("nan"), float("inf"), None])
def test_what_a_finished_trial_has(name, value):
    kept = attributes([0.1, 0.2])
    check_kept(kept, "a trial", complete=True)
    if name == "val_errors" and value == []:
        return
    with pytest.raises(StorageError, match=f"its {name}"):
        check_kept(kept | {name: value}, "a trial", complete=True)


@pytest.mark.parametrize(
    "kept",
    [
        [],
        {"objectives": {"val_error": "x"}},
        {"objectives": []},
        {"rungs": {"1": None}},
        {"error": 5},
        {"test_errors": "none"},
        {"repaired_jacobian_mean": "x"},
        {"score_share": []},
        {"arm": "other"},
        {"candidate": []},
    ],
)
def test_what_others_may_have(kept):
    with pytest.raises(StorageError, match="must be as sculpt wrote it, but its "):
        check_kept(kept, "a trial")
    check_kept({"error": None, "rungs": {"1": 0.5}, "of_a_plugin": "text"}, "a trial")


def test_a_confirmation_names_what_it_confirms():
    with pytest.raises(StorageError, match="its arm is missing"):
        check_kept({"candidate": 3, "seeds": 8}, "a trial", also=OF_CONFIRMATION)


def test_a_selection_that_is_none(tmp_path):
    store = rigged_store(tmp_path, search__confirm={"top": 1, "seeds": 2})
    assert store.confirmation is not None
    store.confirmation.set_user_attr("selected", ["x"])
    with pytest.raises(StorageError, match=r"must have numbers of candidates .* has \['x'\]"):
        sculpt.rank(sculpt.open_results("tiny", store.config.storage_url))


@pytest.mark.parametrize("part", ["study.json", "base.jsonl"])
def test_a_pipe_in_its_place_is_not_waited_for(part, archive, sculpt_command):
    (archive / part).unlink()
    os.mkfifo(archive / part)
    code, _, err = sculpt_command("rank", archive)
    assert code == 2
    assert "a pipe, a socket or a device" in err


@pytest.mark.parametrize("document", ["[]", "[[1]]", '"text"', "3", "null", "{"])
def test_a_head_that_is_no_object(document, archive, sculpt_command):
    (archive / "study.json").write_text(document)
    code, _, err = sculpt_command("status", archive)
    assert code == 2
    assert "an archive must be as sculpt archive wrote it" in err


def test_a_report_replaces_no_device(archive, sculpt_command):
    os.mkfifo(archive / "fifo")
    for command in (["rank"], ["report"], ["report", "--format", "md"]):
        code, _, err = sculpt_command(
            command[0], archive, *command[1:], "--output", "archived/fifo"
        )
        assert code == 2
        assert "a pipe, a socket or a device" in err


@pytest.mark.slow
def test_without_assertions_commands_say_the_same(archive):
    said = [
        subprocess.run(
            [sys.executable, *optimised, "-m", "sculpt", "rank", "archived"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for optimised in ([], ["-O"])
    ]
    assert said[0] == said[1] != ""
