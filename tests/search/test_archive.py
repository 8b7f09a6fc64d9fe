"""The files of an archive: exact, silent about places, and refused with their names if damaged."""

import json
import math
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from sculpt.errors import StorageError
from sculpt.storage.archive.privacy import Privacy, privacy_of
from sculpt.storage.archive.writing import write_archive
from sculpt.storage.attributes import ATTEMPTS, RETRY_OF
from sculpt.storage.opening import open_store, start_store
from sculpt.storage.store import Store, is_archive
from sculpt.storage.stored_trials import read_trials
from sculpt.storage.trial_files import keep_later
from sculpt.storage.trials import MAX_RETRIES, count_states, trial_states
from sculpt.study_file import load_study
from studies import write_study

SPACE: dict[str, Any] = {
    "width": (2.5, FloatDistribution(1.0, 8.0, step=0.5)),
    "rate": (0.1 + 0.2, FloatDistribution(0.01, 0.5, log=True)),
    "blocks": (3, IntDistribution(1, 5)),
    "pruning.criterion": ("synflow", CategoricalDistribution(["grasp", "synflow"])),
    "pruning.repair": (False, CategoricalDistribution([True, False, "exact"])),
}


def started(folder: Path, **changes: Any) -> Store:
    folder.mkdir(parents=True, exist_ok=True)
    return start_store(load_study(write_study(folder, **changes)), "the images", 9)


def add(study: optuna.Study, state: TrialState = TrialState.COMPLETE, **changes: Any) -> None:
    values = [0.25, 1000.0] if state is TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, values=values, **changes))


def archived(store: Store, folder: Path) -> Store:
    write_archive(store, folder, [])
    return open_store(folder)


def test_trials_are_read_as_they_were(tmp_path: Path) -> None:
    store = started(tmp_path / "study")
    space = {
        "params": {name: value for name, (value, _) in SPACE.items()},
        "distributions": {name: kind for name, (_, kind) in SPACE.items()},
    }
    found = {"infinite": math.inf, "text": "ä\u2028</script>", "nested": {"b": [1, None]}}
    add(store.candidates, **space, user_attrs=found, intermediate_values={10: 0.5, 2: 1e-300})
    # Another distribution than the others have, as after a change of Optuna's.
    other = {"blocks": IntDistribution(1, 9)}
    add(store.candidates, params={"blocks": 9}, distributions=other)
    add(store.candidates, TrialState.PRUNED, user_attrs={"stopped_because": "beaten"})
    made = archived(store, tmp_path / "made")
    back = made.candidates
    assert back.directions == store.candidates.directions
    assert back.metric_names == store.candidates.metric_names == ["val_error", "kept_macs"]
    for number, ours in enumerate(store.candidates.get_trials()):
        theirs = back.get_trials()[number]
        for attribute in (
            *("number", "state", "values", "params", "distributions", "user_attrs"),
            *("intermediate_values", "datetime_start", "datetime_complete"),
        ):
            assert getattr(theirs, attribute) == getattr(ours, attribute), attribute
        assert list(theirs.params) == list(ours.params)
    assert read_trials(back, made.storage) == back.get_trials()
    assert {type(value) for value in back.trials[0].params.values()} == {float, int, str, bool}


def test_distributions_are_written_once(tmp_path: Path) -> None:
    store = started(tmp_path / "study")
    kind = IntDistribution(1, 5)
    for blocks in (1, 2):
        add(store.candidates, params={"blocks": blocks}, distributions={"blocks": kind})
    add(store.candidates, params={"blocks": 9}, distributions={"blocks": IntDistribution(1, 9)})
    write_archive(store, tmp_path / "made", [])
    lines = (tmp_path / "made" / "candidates.jsonl").read_text().splitlines()
    assert ["distributions" in json.loads(line) for line in lines] == [False, False, True]


def test_retries_and_what_runs_keep_their_numbers(tmp_path: Path) -> None:
    store = started(tmp_path / "study")
    add(store.candidates, TrialState.FAIL)
    add(store.candidates, system_attrs={RETRY_OF: 0, ATTEMPTS: [0], "mine": "/x/y/z"})
    add(store.candidates, TrialState.RUNNING)
    last = {RETRY_OF: 9, ATTEMPTS: [9] * MAX_RETRIES}
    add(store.candidates, TrialState.RUNNING, system_attrs=last)
    add(store.candidates, TrialState.WAITING)
    add(store.candidates)
    made = archived(store, tmp_path / "made")
    back = made.candidates
    states = ["interrupted", "complete", "interrupted", "queued", "queued", "complete"]
    read = read_trials(back, made.storage)
    assert trial_states(read) == dict(enumerate(states))
    assert [trial.number for trial in back.trials] == list(range(6))
    # Whoever runs it or waits in the study itself is still to be done.
    ours = count_states(read_trials(store.candidates, store.storage))
    theirs = count_states(read)
    assert theirs["queued"] == ours["running"] + ours["queued"] == 3
    assert "mine" not in back.trials[1].system_attrs


def test_what_is_read_of_the_studies_is_kept(tmp_path: Path) -> None:
    store = started(tmp_path / "study", search__confirm={"top": 1, "seeds": 2})
    assert store.confirmation is not None
    add(store.candidates)
    keep_later(store.candidates, 0, {"latency": 0.5})
    store.confirmation.set_user_attr("selected", [0])
    store.confirmation.set_user_attr("seeds", 2)
    back = archived(store, tmp_path / "made")
    assert back.archive == tmp_path / "made"
    assert back.total == store.total == 9
    assert back.finished == store.finished == 1
    assert back.candidates.user_attrs["afterwards/0"] == {"latency": 0.5}
    assert back.candidates.user_attrs["images"] == "the images"
    assert back.confirmation is not None
    assert back.confirmation.user_attrs == {"selected": [0], "seeds": 2}
    assert (back.base.study_name, back.confirmation.study_name) == ("tiny/base", "tiny/confirm")


def test_places_are_hidden_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "trainer-7.lab")
    bundles = [str(tmp_path / run / "best.safetensors") for run in ("one", "two")]
    (tmp_path / "my images").mkdir()
    store = started(
        tmp_path / "study",
        data={"name": "image_folder", "root": str(tmp_path / "my images"), "size": 8},
        artifacts=str(tmp_path / "my artifacts"),
        space__parameters={
            "pruning.criterion": [{"name": "from_bundle", "bundle": path} for path in bundles]
        },
        published={"source": "https://arxiv.org/abs/1", "figures": ["test_error"], "rows": []},
    )
    choices = [f"from_bundle(bundle={path})" for path in bundles]
    kind = {"pruning.criterion": CategoricalDistribution(choices)}
    for choice in choices:
        add(store.candidates, params={"pruning.criterion": choice}, distributions=kind)
    add(store.candidates, TrialState.FAIL, user_attrs={"error": ["/of/a/plugin"]})
    errors = {
        f"DataError: {tmp_path}/my images/a/x.png is none": "DataError: x.png is none",
        f"no such file: '{tmp_path}/her images/x.npz'": "no such file: 'x.npz'",
        "at postgresql://me:secret@db17/studies it failed": "at postgresql://... it failed",
        "on trainer-7.lab: 3/4 of 5 MB/s, and/or https://pytorch.org/docs/x": (
            "on HOST: 3/4 of 5 MB/s, and/or https://pytorch.org/docs/x"
        ),
    }
    for error in errors:
        add(store.candidates, TrialState.FAIL, user_attrs={"error": error})
    back = archived(store, tmp_path / "made")
    files = list((tmp_path / "made").iterdir())
    text = "".join(file.read_text() for file in files)
    for word in (str(tmp_path), "/tmp", "my ", "her ", "secret", "db17", "trainer", "one/", "two/"):
        assert word not in text
    params = [trial.params["pruning.criterion"] for trial in back.candidates.trials[:2]]
    names = ["best.safetensors", "best-2.safetensors"]  # the networks are two
    assert params == [f"from_bundle(bundle={name})" for name in names]
    told = [trial.user_attrs["error"] for trial in back.candidates.trials[3:]]
    assert back.candidates.trials[2].user_attrs["error"] == ["plugin"]
    assert told == list(errors.values())
    assert back.config.published is not None
    assert back.config.published.source == "https://arxiv.org/abs/1"
    assert back.config.data.options["root"] == "DIR"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/me/x.db", "x.db"),
        ("/images", "images"),
        ("~/data/cifar/", "cifar"),
        ("(/a/b/c.py:12)", "(c.py:12)"),
        ("open '/images' or \"/mnt/my data/x\"", "open 'images' or \"x\""),
        (r"in C:\Users\me\x.pt", "in x.pt"),
        ("s3://bucket/key", "s3://..."),
        ("https://me:token@host.org/x", "https://host.org/x"),
        ("a/b, ../runs/c, runs/d.db, 1 / 2, </b>, cost/MACs", None),
        ("https://arxiv.org/abs/2401.1/v2", None),
        ("x86_64, 2.15.0+cpu", None),
    ],
)
def test_what_is_told_of_a_text(text: str, told: str | None) -> None:
    privacy = Privacy({})
    assert privacy.hide_text(text) == (text if told is None else told)
    assert privacy.hide({"key": [text, 1, None]}) == {"key": [privacy.hide_text(text), 1, None]}
    assert privacy.hide_text(privacy.hide_text(text)) == privacy.hide_text(text)


def test_a_known_place_is_hidden_whatever_letters_it_has(tmp_path: Path) -> None:
    settings = {"data": {"name": "image_folder", "root": "d/", "size": 8}, "artifacts": "/a b/c d"}
    privacy = privacy_of(load_study(write_study(tmp_path, **settings)), [])
    for text, told in {
        "widening d at /a b/c d/e": "widening d at e",
        "in /a b/c d: no": "in c d: no",
        "and/or /a b/c ds/x, metad/x": "and/or /a b/c ds/x, metad/x",
    }.items():
        assert privacy.hide_text(text) == told


def spoil(file: Path, change: Callable[[str], str]) -> None:
    file.write_text(change(file.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("study.json", lambda text: text[:-9], "it is not JSON"),
        ("study.json", lambda text: "[]", "its format is None"),
        ("study.json", lambda text: text.replace("-archive-1", "-archive-9"), "upgrade sculpt"),
        ("study.json", lambda text: text.replace('"total"', '"totally"'), "total: Field required"),
        ("study.json", lambda text: text.replace('"digits"', "7"), "its settings are none.*data"),
        ("study.json", lambda text: text.replace('"IntD', '"OddD'), "a distribution is none"),
        ("study.json", None, "cannot be read"),
        ("base.jsonl", None, "cannot be read"),
        ("candidates.jsonl", None, "cannot be read"),
        ("candidates.jsonl", lambda text: text.split("\n")[0], "1 lines where study.json says 2"),
        ("candidates.jsonl", lambda text: text.replace("{", "", 1), "line 1 is not trial 0"),
        ("candidates.jsonl", lambda text: text.replace("0", "1", 1), "line 1 .*it is trial 1"),
        ("candidates.jsonl", lambda text: text.replace("COMPLETE", "DONE"), "line 1 .*state"),
        ("candidates.jsonl", lambda text: text.replace(':{"blocks":1}', ':{"blocks":7}'), "line 1"),
        ("candidates.jsonl", lambda text: text.replace(':{"blocks":1}', ':{"rocks":1}'), "rocks"),
        ("candidates.jsonl", lambda text: text.replace("[0.25,1000.0]", "null"), "values"),
        ("candidates.jsonl", lambda text: text.replace("start", "star"), "start: Field required"),
        ("candidates.jsonl", lambda text: text.replace("T", "at"), "line 1"),
    ],
)
def test_a_damaged_file_is_named(
    name: str, change: Callable[[str], str] | None, problem: str, tmp_path: Path
) -> None:
    store = started(tmp_path / "study")
    for blocks in (1, 2):
        kind = {"blocks": IntDistribution(1, 5)}
        add(store.candidates, params={"blocks": blocks}, distributions=kind)
    file = tmp_path / "made" / name
    archived(store, file.parent)
    if change:
        before = file.read_text()
        spoil(file, change)
        assert file.read_text() != before
    else:
        file.unlink()
    with pytest.raises(StorageError, match=rf"(?s)^{file}: an archive must be .*{problem}") as told:
        open_store(file.parent)
    assert "\n" not in str(told.value)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    archived(started(tmp_path / "study"), folder)
    spoil(folder / "study.json", lambda text: text.replace('"records": []', '"records": [3, 4]'))
    (folder / "records").mkdir()
    (folder / "records" / "3.json").write_text("{")
    files = open_store(folder).artifacts
    with pytest.raises(StorageError, match=r"records/3\.json: an archive must .*is not JSON"):
        files.open_reader("3.json")
    with pytest.raises(StorageError, match=r"records/4\.json: an archive must .*cannot be read"):
        files.open_reader("4.json")
    with pytest.raises(StorageError, match=r"has no records/5\.json: it holds those of 2 trials"):
        files.open_reader("5.json")


def test_a_plugin_that_is_named_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin_of_the_sender.py").write_text("raise SystemExit(7)")
    monkeypatch.syspath_prepend(tmp_path)
    store = started(tmp_path / "study")
    names = ["nobody_has_this", "plugin_of_the_sender"]
    absent = store.config.model_copy(update={"plugins": names})
    write_archive(replace(store, config=absent), tmp_path / "made", [])
    back = open_store(tmp_path / "made")
    assert (back.total, back.config.plugins) == (9, names)


def test_what_is_taken_for_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("made", "other"):
        Path(name).mkdir()
    Path("made", "study.json").write_text("{}")
    assert is_archive("made")
    assert not is_archive("made", "runs/x.db")  # a study may be called so
    assert is_archive("./made", "runs/x.db")
    assert is_archive(tmp_path / "made", "runs/x.db")
    assert not is_archive("other")
    assert not is_archive("absent")
    assert not is_archive("studies/digits.yaml")
    # Nothing else is in a folder: what is missing is said.
    with pytest.raises(StorageError, match=r"other/study\.json: an archive must be"):
        open_store("other/")


def test_times_are_written_as_they_were(tmp_path: Path) -> None:
    store = started(tmp_path / "study")
    add(store.candidates)
    (trial,) = store.candidates.trials
    assert isinstance(trial, FrozenTrial)
    write_archive(store, tmp_path / "made", [])
    line = json.loads((tmp_path / "made" / "candidates.jsonl").read_text())
    assert datetime.fromisoformat(line["complete"]) == trial.datetime_complete
