"""`sculpt bench` and what `sculpt check` makes of it. What is measured is never judged here."""

import json

import pytest

import sculpt
from sculpt.benchmark.prediction import bench_path
from sculpt.benchmark.race import Effort
from sculpt.benchmark.throughput import MOST_CANDIDATES, choose_candidates
from sculpt.data import ImageSpec
from sculpt.study_file import load_study
from studies import write_study

QUICK = ("--repeats", "2", "--seconds", "0.01")


@pytest.fixture
def measured(tmp_path, sculpt_command):
    """The tiny study, and what measuring one candidate of it printed."""
    path = write_study(tmp_path)
    one = ("--set", "params.widening=2", "--set", "params.blocks=1")
    code, out, err = sculpt_command("bench", path, *one, *QUICK, "--json")
    assert code == 0, err
    return path, json.loads(out)


@pytest.mark.slow
def test_a_study_is_measured_against_the_standard_loop(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    code, out, _ = sculpt_command("bench", path, *QUICK, "--against-standard", "--json")
    document = json.loads(out)
    assert code == 0
    assert document.keys() >= {"study", "device", "versions", "rows", "predicted"}
    assert document["study"] == "tiny"
    assert document["device"].keys() == {"type", "name", "threads"}
    assert json.loads((tmp_path / "tiny-bench.json").read_text()) == document
    corners = [{"widening": k, "blocks": n} for n in (1, 2) for k in (2, 3)]
    base = [("base", "train"), ("base", "evaluate"), ("standard_loop", "train")]
    candidate = [
        *[("candidate", phase) for phase in ("score", "repair", "train", "evaluate")],
        ("standard_loop", "train"),
    ]
    expected = [({}, *row) for row in base]
    expected += [(corner, *row) for corner in corners for row in candidate]
    rows = document["rows"]
    assert [(row["params"], row["role"], row["phase"]) for row in rows] == expected
    for row in rows:
        assert row["seconds"] > 0
        if row["phase"] == "repair":
            assert row["images_per_second"] is None
        else:
            assert row["images_per_second"] > 0
        assert ("ratio" in row) == (row["role"] == "standard_loop")
        assert row.get("ratio", 1) > 0
        if row["phase"] == "train":  # one epoch of 150 images
            assert row["seconds"] * row["images_per_second"] == pytest.approx(150)
    predicted = document["predicted"]
    per_trial = predicted["seconds_per_trial"]
    assert predicted["trials"] == 4
    assert predicted["seconds"] == pytest.approx(per_trial["base"] + 3 * per_trial["candidate"])
    counted = [row["seconds"] for row in rows if row["role"] == "base"]
    assert per_trial["base"] > 2 * sum(counted), "two seeds, and what has no row"


def test_one_candidate_is_chosen_by_its_parameters(measured):
    path, document = measured
    one = {"params.widening": 2, "params.blocks": 1}
    again = sculpt.bench(path, one, effort=Effort(repeats=1, seconds=0.01))
    assert [row["params"] for row in again["rows"]] == [row["params"] for row in document["rows"]]
    assert again.keys() == document.keys()
    rows = document["rows"]
    assert {row["role"] for row in rows} == {"base", "candidate"}
    assert all(
        row["params"] == {"widening": 2, "blocks": 1} for row in rows if row["role"] != "base"
    )


def test_check_shows_the_prediction(measured, sculpt_command):
    path, document = measured
    _, out, _ = sculpt_command("check", path, "--json")
    assert json.loads(out)["predicted"] == {
        "seconds": pytest.approx(document["predicted"]["seconds"]),
        "measured_on": document["device"],
    }
    # The total is no part of what was measured: it may change afterwards.
    _, out, _ = sculpt_command("check", path, "--set", "search.trials=2", "--json")
    per_trial = document["predicted"]["seconds_per_trial"]
    assert json.loads(out)["predicted"]["seconds"] == pytest.approx(sum(per_trial.values()))
    _, out, _ = sculpt_command("check", path)
    assert "the whole study: about 0:0" in out


def test_check_ignores_what_was_measured_of_another_study(measured, sculpt_command):
    path, _ = measured
    code, out, _ = sculpt_command("check", path, "--set", "training.epochs=2", "--json")
    assert (code, json.loads(out)["predicted"]) == (0, None)
    code, out, _ = sculpt_command("check", path, "--set", "training.epochs=2")
    assert code == 0
    assert "the whole study" not in out


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"fingerprint": '])
def test_check_ignores_what_it_cannot_read(tmp_path, sculpt_command, content):
    path = write_study(tmp_path)
    bench_path(load_study(path)).write_text(content)
    code, out, _ = sculpt_command("check", path, "--json")
    assert (code, json.loads(out)["predicted"]) == (0, None)


def test_the_table_for_people(tmp_path, sculpt_command):
    path = write_study(tmp_path, space={"parameters": {"widening": [2]}}, search__trials=2)
    code, out, err = sculpt_command("bench", path, *QUICK)
    assert code == 0
    assert "images/s" in out
    assert "the whole study: about" in out
    assert err.splitlines() == ["measuring the base", "measuring widening 2"]


def test_criteria_that_look_at_no_images_have_no_rate(tmp_path, sculpt_command):
    path = write_study(
        tmp_path, pruning={"criterion": {"name": "magnitude"}, "repair": False}, training__epochs=0
    )
    code, out, _ = sculpt_command("bench", path, *QUICK, "--set", "params.widening=2", "--json")
    rows = {row["phase"]: row for row in json.loads(out)["rows"] if row["role"] == "candidate"}
    assert code == 0
    assert rows.keys() == {"score", "train", "evaluate"}
    assert rows["score"]["images_per_second"] is None
    assert rows["train"]["seconds"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "params.widening=7"], "params.widening must be one of 2, 3, but got 7"),
        (["--device", "tpu:7"], "--device must be auto, cpu"),
        (["--set", "budget=4000000"], "must hold the budget, but none does"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(tmp_path, sculpt_command, arguments, message):
    path = write_study(tmp_path)
    code, out, err = sculpt_command("bench", path, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("sculpt: ")
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"], "nothing may be written"


def test_a_large_space_gives_few_corners_spread_over_it(tmp_path):
    space = {
        "widening": {"low": 2, "high": 30},
        "blocks": {"low": 1, "high": 3},
        "training.learning_rate": {"low": 0.01, "high": 0.1},
        "training.momentum": [0.0, 0.5, 0.9],
    }
    config = load_study(write_study(tmp_path, space={"parameters": space}))
    spec = ImageSpec(channels=1, height=8, width=8, classes=10)
    chosen = choose_candidates(config, {}, spec)
    assert len(chosen) == MOST_CANDIDATES
    for key in space:
        assert len({point[key] for point in chosen}) == 2, f"{key} must vary"
    assert choose_candidates(config, {"blocks": 2}, spec) == [{"blocks": 2}]
