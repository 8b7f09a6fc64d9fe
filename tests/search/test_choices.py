"""Spaces over whole choices, data sets to score on, and budgets that are a share."""

import pytest

import sculpt
from sculpt.config import Study
from sculpt.search.images import describe_data
from sculpt.search.sampling.feasibility import check_study
from sculpt.search.sampling.space import points
from sculpt.study_file import load_study
from studies import write_study

CRITERIA = [{"name": "random"}, {"name": "connection_sensitivity", "targets": "gt"}]


def test_a_choice_is_sampled_by_its_label_and_means_all_of_it(tmp_path):
    path = write_study(
        tmp_path,
        space__parameters={"pruning.criterion": CRITERIA, "model": [{"name": "mlp", "units": 9}]},
        budget={"sparsity": 0.5},
        training__epochs=0,
        search__trials="all",
    )
    study = load_study(path)
    labels = ["random", "connection_sensitivity(targets=gt)"]
    assert [point["pruning.criterion"] for point in points(study.space)] == labels
    candidate = study.with_parameters({"pruning.criterion": labels[1], "model": "mlp(units=9)"})
    assert candidate.pruning.criterion.model_dump() == CRITERIA[1]
    assert (candidate.model.name, candidate.model.options) == ("mlp", {"units": 9})
    results = sculpt.run(path)
    assert sorted(results.complete["params.pruning.criterion"].dropna()) == sorted(labels)
    for number in (0, 1):
        config = Study.model_validate(results.record(number)["config"])
        assert (
            config.pruning.criterion.label == results.record(number)["params"]["pruning.criterion"]
        )


@pytest.mark.slow
def test_a_budget_may_be_a_share_that_is_sampled(tmp_path):
    path = write_study(
        tmp_path,
        space__parameters={"budget.sparsity": [0.5, 0.9], "widening": [1, 2]},
        budget={"sparsity": 0.5},
        training__epochs=0,
        search__trials="all",
    )
    study = load_study(path)
    document = check_study(study, describe_data(study))
    assert document["budget"] is None
    assert document["trials"] == 5
    for corner in document["corners"]:
        share = 1 - corner["params"]["budget.sparsity"]
        assert corner["budget"] == round(share * corner["dense_parameters"])
    results = sculpt.run(path)
    table = results.complete[results.complete["role"] == "candidate"]
    assert len(table) == 4
    kept = (1 - table["params.budget.sparsity"]) * table["dense_parameters"]
    assert (table["kept_parameters"] == kept.round()).all()
    base = results.record("base")
    assert base["kept_parameters"] == base["dense_parameters"]
    ranking = sculpt.rank(results)
    assert ranking["budget"] is None
    assert {round(row["sparsity"], 2) for row in ranking["ranking"]} == {0.0, 0.5, 0.9}


@pytest.mark.slow
def test_candidates_may_be_scored_on_another_data_set(tmp_path):
    path = write_study(
        tmp_path,
        space__parameters={
            "pruning.data": [{"name": "digits"}, {"name": "digits", "train_images": 60}]
        },
        budget=2000,
        training__epochs=0,
        search__trials="all",
        search__replicates=1,
        model__widening=2,
    )
    results = sculpt.run(path)
    records = [results.record(number) for number in (0, 1)]
    assert {r["params"]["pruning.data"] for r in records} == {"digits", "digits(train_images=60)"}
    densities = [[layer["density"] for layer in record["layers"]] for record in records]
    assert densities[0] != densities[1]
