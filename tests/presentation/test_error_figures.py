"""The paper's Figure 3 of a study: published errors stand at the sparsity of what was run here."""

import json
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution
from rigged import add_trial, attributes, results_of, rigged_store

from sculpt.config import Choice
from sculpt.presentation.candidate_figures import error_against_sparsity
from sculpt.presentation.content import collect
from sculpt.storage.opening import start_store
from sculpt.study_file import load_study

TABLE_6 = Path(__file__).resolve().parents[2] / "studies" / "paper" / "table6.yaml"


def test_table_6_is_overlaid(tmp_path):
    config = load_study(TABLE_6, {"storage": str(tmp_path / "table6.db")})
    store = start_store(config, "no images", 17)
    tested = {"test_errors": [0.081, 0.079]}
    add_trial(store.base, attributes([0.1, 0.1], "base") | tested)
    shapes = [m.label for m in config.space.parameters["model"] if isinstance(m, Choice)]
    assert len(shapes) == 8
    for number, shape in enumerate(shapes):
        for repair in (False, True):
            found = attributes([0.1, 0.1], sparsity=0.5 + 0.05 * number) | tested
            params = {"model": shape, "pruning.repair": repair}
            choices = CategoricalDistribution([*shapes, False, True])
            add_trial(store.candidates, found, params, distribution=choices)
    content = collect(results_of(store))
    assert content.error == "test"
    assert content.published is not None
    assert content.published.unmatched == 0
    figure = error_against_sparsity(content)
    assert figure is not None
    drawn = {row["x"]: row["y"] for row in figure["datasets"]["published"]}
    assert drawn == {
        0.0: 8.046,  # the dense base
        50.0: 7.618,  # k 2, n 3, and so on in the order of the study
        55.0: 7.912,
        60.0: 7.776,
        65.0: 7.63,
        70.0: 7.876,
        85.0: 7.836,
    }
    (base,) = figure["datasets"]["base"]
    assert (base["low"] + base["high"]) / 2 == pytest.approx(base["y"]) == pytest.approx(8.0)


@pytest.mark.parametrize(("errors", "bars"), [([0.2], 0), ([0.2, 0.2], 0), ([0.1, 0.3], 1)])
def test_bars_are_drawn_of_what_has_a_spread(tmp_path, errors, bars):
    """Vega warns in the reader's console of a layer in which nothing is left to draw."""
    store = rigged_store(tmp_path)
    add_trial(store.base, attributes([0.1], "base"))
    add_trial(store.candidates, attributes(errors))
    figure = error_against_sparsity(collect(results_of(store)))
    assert figure is not None
    assert json.dumps(figure).count("datum.high") == bars
