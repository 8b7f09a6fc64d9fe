"""Networks of several studies side by side: who is compared with whom, and how."""

from typing import Any

import pytest
from rich.console import Console

import sculpt
from sculpt.errors import InputError
from sculpt.results.comparison import compare, split_reference
from sculpt.results.tables.comparison import comparison_tables
from sculpt.results.tables.trial import trial_tables
from studies import write_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three small studies that have run: one, the like of it on other seeds, on other images."""
    folder = tmp_path_factory.mktemp("compared")
    space = {"widening": [2], "blocks": [1]}
    for name, changes in {
        "one": {},
        "seeds": {"search__seed": 7, "training__learning_rate": 0.05},
        "images": {"data__train_images": 160},
    }.items():
        changes |= {"study": name, "search__trials": 2, "search__replicates": 2}
        changes |= {"space__parameters": space}
        path = write_study(folder, **changes).rename(folder / f"{name}.yaml")
        path.write_text(path.read_text().replace("tiny.db", f"{name}.db"))
        sculpt.run(path)
    return folder


def printed(view: Any) -> str:
    console = Console(width=220)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


@pytest.mark.slow
def test_each_is_compared_with_the_first(folder):
    one, seeds, images = (str(folder / f"{name}.yaml") for name in ("one", "seeds", "images"))
    document = compare([f"{one}:base", one, f"{seeds}:0", f"{images}:best"])
    rows = document["networks"]
    assert [(row["study"], row["trial"]) for row in rows] == [
        ("one", "base"),
        ("one", 0),
        ("seeds", 0),
        ("images", 0),
    ]
    reference, same, other, elsewhere = rows
    assert (reference["difference"], reference["verdict"]) == (None, "reference")
    assert same["difference"]["method"] == "student"
    expected = same["val_error"]["mean"] - reference["val_error"]["mean"]
    assert same["difference"]["mean"] == pytest.approx(expected)
    assert other["difference"]["method"] == "welch"
    assert (elsewhere["difference"], elsewhere["verdict"]) == (None, "other images")
    settings = {row["key"]: row["values"] for row in document["settings"]}
    assert settings["training.learning_rate"][2] == 0.05
    assert settings["data.train_images"] == [200, 200, 200, 160]
    assert settings["model.widening"] == [1, 2, 2, 2]
    assert not any(key.startswith(("search", "space", "storage", "study")) for key in settings)
    text = printed(comparison_tables(document))
    for part in ("compared with one:base", "other images", "Welch", "training.learning_rate"):
        assert part in text


@pytest.mark.slow
def test_wrong_references(folder):
    one = str(folder / "one.yaml")
    for references, message in [
        ([one], "at least two networks"),
        ([one, f"{one}:0"], "given twice"),
        ([one, f"{one}:9"], "must be base, best or one of 0, but got 9"),
        ([one, f"{one}:worst"], "must be base, best or one of 0, but got worst"),
    ]:
        with pytest.raises(InputError, match=message):
            compare(references)


@pytest.mark.slow
def test_one_trial_whole(folder):
    results = sculpt.open_results(folder / "one.yaml")
    record = results.record("best")
    text = printed(trial_tables(record))
    layer = record["layers"][1]
    channels = f"{layer['effective_channels']} of {layer['shape'][0]}"
    for part in (
        "trial 0 (candidate) of one: blocks 1, widening 2",
        layer["name"],
        channels,
        "repaired",
    ):
        assert part in text
    error = record["runs"][0]["history"][-1]
    mean = sum(run["history"][-1]["val_error"] for run in record["runs"]) / 2
    assert error["epoch"] == 1
    assert f"{100 * mean:.2f}" in text


@pytest.mark.slow
def test_collapse_is_said(folder):
    record = sculpt.open_results(folder / "one.yaml").record(0)
    run = record["runs"][1]
    run["collapsed_layers"] = ["classifier.weight"]
    run["signal"]["repaired"]["log10_paths"] = None
    run["diverged"] = True
    text = printed(trial_tables(record))
    for part in ("no weight is left in classifier.weight", "no path leads", "did not stay finite"):
        assert f"seed {run['seed']}: " in text
        assert part in text


@pytest.mark.slow
def test_a_stopped_trial(folder):
    stopped = {
        "trial": 4,
        "state": "stopped",
        "error": "after epoch 3: beaten",
        "params": {"widening": 3},
        "rungs": {"3": 0.25},
    }
    text = printed(trial_tables(stopped))
    for part in ("trial 4: stopped, after epoch 3: beaten", "widening 3", "25.00 % after 3"):
        assert part in text


@pytest.mark.parametrize(
    ("reference", "study", "trial"),
    [
        ("one.yaml", "one.yaml", "best"),
        ("one:3", "one", "3"),
        ("a folder/one.yaml:base", "a folder/one.yaml", "base"),
        ("C:/one.yaml:best", "C:/one.yaml", "best"),
        ("one:dense blocks [2, 3, 1]", "one", "dense blocks [2, 3, 1]"),
        ("one:erk pruning.granularity 2:4", "one", "erk pruning.granularity 2:4"),
        ("one:erk", "one", "erk"),
        ("one:other", "one", "other"),
        ("erk", "erk", "best"),
    ],
)
def test_where_a_study_ends_and_a_trial_begins(reference, study, trial):
    assert split_reference(reference) == (study, trial)
