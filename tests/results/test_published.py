"""Published figures beside the measured ones."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import sculpt
from sculpt.errors import ConfigError
from sculpt.record import path_fault
from sculpt.results.published import (
    _look_up,
    _summary,
    measured_figures,
    measured_path,
    write_measured,
)
from studies import write_study

PUBLISHED = {
    "source": "Nobody 2020, Table 9",
    "figures": ["val_error", "layers.density", "signal.repaired.jacobian.mean", "history.epoch"],
    "rows": [
        {"params": "base", "val_error": 0.5},
        {"params": {"widening": 3, "blocks": 1}, "val_error": 0.25, "layers.density": [1, 2]},
        {"params": {"widening": 9, "blocks": 1}, "val_error": 0.125},
    ],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> sculpt.Results:
    folder = tmp_path_factory.mktemp("published")
    path = write_study(
        folder,
        published=PUBLISHED,
        diagnostics__jacobian_images=2,
        search__trials="all",
        search__replicates=2,
        space__parameters__blocks=[1],
    )
    return sculpt.run(path)


def test_every_trial_has_its_figures_over_the_seeds(results: sculpt.Results) -> None:
    document = measured_figures(results)

    assert document["source"] == PUBLISHED["source"]
    assert document["seeds"] == [0, 1]
    assert document["versions"]["torch"]
    rows = {str(row["params"]): row["figures"] for row in document["rows"]}
    assert len(rows) == 3
    for trial, row in zip(results.complete["trial"], results.complete.iloc, strict=True):
        record = results.record(trial)
        figures = rows[str(record["params"] or "base")]
        error = figures["val_error"]
        assert error["n"] == 2
        assert error["mean"] == pytest.approx(row["val_error_mean"], rel=1e-5)
        assert error["std"] == pytest.approx(row["val_error_std"], rel=1e-5)
        assert error["values"] == pytest.approx(row["val_errors"], rel=1e-5)
        densities = [[layer["density"] for layer in run["layers"]] for run in record["runs"]]
        assert figures["layers.density"]["mean"] == pytest.approx(
            [sum(column) / 2 for column in zip(*densities, strict=True)], rel=1e-5
        )
        assert figures["history.epoch"]["mean"] == [1]


def test_published_figures_stand_beside_those_of_their_trial(results: sculpt.Results) -> None:
    for row in measured_figures(results)["rows"]:
        given = {k: v["published"] for k, v in row["figures"].items() if "published" in v}
        if row["params"] == "base":
            assert given == {"val_error": 0.5}
        elif row["params"]["widening"] == 3:
            assert given == {"val_error": 0.25, "layers.density": [1, 2]}
        else:
            assert given == {}


def test_the_base_was_never_repaired(results: sculpt.Results) -> None:
    figure = "signal.repaired.jacobian.mean"
    rows = {str(row["params"]): row["figures"][figure] for row in measured_figures(results)["rows"]}
    assert rows.pop("base") == {"n": 2, "values": [None, None]}
    assert all(row["mean"] > 0 for row in rows.values())


def test_the_file_stands_beside_the_study(results: sculpt.Results, tmp_path: Path) -> None:
    path = measured_path(tmp_path / "table9.yaml")
    assert path == tmp_path / "table9.measured.yaml"
    document = write_measured(results, path)
    assert yaml.safe_load(path.read_text()) == document


def test_a_study_without_published_figures(results: sculpt.Results) -> None:
    class Other:
        config = results.config.model_copy(update={"published": None})

    with pytest.raises(ConfigError, match="must have a section `published`"):
        measured_figures(Other())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("val_eror", "'val_eror': 'val_eror' is not among dense_parameters, "),
        ("signal.first.log10_paths", "'first' is not among initial, pruned, repaired"),
        ("val_error.mean", "'mean' goes on below a single value"),
        ("layers.name.x", "'x' goes on below a single value"),
        ("", "'' is not among"),
    ],
)
def test_a_figure_that_is_none_is_refused_before_anything_is_written(
    figure: str, message: str, tmp_path: Path, sculpt_command: Any
) -> None:
    path = write_study(tmp_path, published={"source": "x", "figures": ["val_error", figure]})
    for command in ("check", "run"):
        code, out, err = sculpt_command(command, path)
        assert (code, out) == (2, "")
        assert "published.figures: must be paths in a seed's record, but got" in err
        assert message in err
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_figures_of_every_kind_are_known() -> None:
    for figure in (
        "seconds.train",
        "layers.shape",
        "signal.repaired.jacobian.mean",
        "training.engine.reason",
        "compaction.saving",
        "latency_by",
    ):
        assert not path_fault(figure)


def test_lists_are_walked_through() -> None:
    node = {"layers": [{"a": {"b": 1}}, {"a": {"b": 2}}]}
    assert _look_up(node, "layers.a.b") == [1, 2]


def test_spread_is_that_of_the_seeds() -> None:
    assert _summary([1.0, 3.0]) == {"n": 2, "mean": 2.0, "std": 1.41421, "values": [1.0, 3.0]}
    assert _summary([5.0])["std"] is None
    both = {"n": 2, "mean": [2.0, 2.0], "std": [1.41421, 0.0]}
    assert _summary([[1.0, 2.0], [3.0, 2.0]]) == both
    assert _summary([1.0, math.inf]) == {"n": 2, "values": [1.0, math.inf]}
    assert _summary([["a"], []]) == {"n": 2, "values": [["a"], []]}
