"""Opening a study: another program's, damaged ones, and what is refused before it is made."""

from contextlib import closing

import optuna
import pytest

import sculpt
from sculpt.errors import InputError, SculptError, StorageError
from sculpt.search.sampling.unrepeated import UnrepeatedSampler
from sculpt.storage.opening import open_store, start_store
from sculpt.storage.study_storage import open_storage
from sculpt.study_file import load_study
from studies import write_study


def start(folder, **changes):
    return start_store(load_study(write_study(folder, **changes)), "no images", 9)


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "minimize"]])
@pytest.mark.parametrize("trials", [0, 1])
def test_another_programs_study_of_this_name_is_left_alone(tmp_path, directions, trials):
    with closing(open_storage(f"{tmp_path}/tiny.db", create=True)) as storage:
        study = optuna.create_study(study_name="tiny", storage=storage, directions=directions)
        for _ in range(trials):
            study.enqueue_trial({"x": 1})
        if trials or len(directions) == 2:
            with pytest.raises(StorageError, match="belongs to another program") as raised:
                start(tmp_path, search__objectives=["val_error"])
            assert raised.value.exit_code == 2
            assert optuna.get_all_study_names(storage) == ["tiny"]
        else:  # nothing is lost by taking it
            assert start(tmp_path, search__objectives=["val_error"]).total == 9
        study.set_user_attr("sculpt_format", "7")
        with pytest.raises(StorageError, match="belongs to another program"):
            open_store("tiny", f"{tmp_path}/tiny.db")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("sculpt_format", 99, "upgrade sculpt"),
        ("config", "{", "its settings are none"),
        ("config", [], "its settings are none"),
        ("config", "{}", "its settings are none"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path, name, value, problem):
    store = start(tmp_path)
    store.candidates.set_user_attr(name, value)
    for look in (lambda: open_store("tiny", f"{tmp_path}/tiny.db"), lambda: start(tmp_path)):
        with pytest.raises(StorageError, match=problem) as raised:
            look()
        assert raised.value.exit_code == 2


MISSING = {"name": "magnitude", "checkpoint": "missing.pt"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"training__translate": 8}, "training.translate: must be at most 7 for images of 8x8"),
        ({"training__cutout": 9}, "training.cutout: must be at most 8 for images of 8x8"),
        ({"pruning__criterion": MISSING}, "must be a readable .* but missing.pt is not"),
        (
            {"space__parameters": {"pruning.criterion": [{"name": "random"}, MISSING]}},
            "must be a readable .* but missing.pt is not",
        ),
        (
            {
                "pruning__criterion": {
                    "name": "shuffled",
                    "of": "magnitude",
                    "of_options": {"checkpoint": "/dev/zero"},
                }
            },
            "a pipe, a socket or a device",
        ),
    ],
)
def test_what_images_or_files_forbid_is_known_before_anything_is_written(
    tmp_path, monkeypatch, changes, problem
):
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, **changes)
    for command in (sculpt.check, sculpt.run):
        with pytest.raises(InputError, match=problem) as raised:
            command(path)
        assert raised.value.exit_code == 2
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_name_that_is_too_long_for_files_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(StorageError, match="File name too long"):
        open_store("x" * 300)


@pytest.mark.slow
def test_what_a_sampler_raises_is_the_error_of_its_trial(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no more ideas")

    monkeypatch.setattr(UnrepeatedSampler, "sample_independent", fail)
    path = write_study(tmp_path, search__trials=3, search__replicates=1)
    with pytest.raises(SculptError, match="all failed; the last: ValueError: no more ideas"):
        sculpt.run(path)
    tally = sculpt.open_results(path).tally()
    assert (tally["failed"], tally["interrupted"]) == (2, 0)
