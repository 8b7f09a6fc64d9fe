"""Studies that start from the exported network of another one: sparsity transferred, fine-tuned."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import bits

import sculpt
from sculpt.bundle import read_bundle
from sculpt.config import Study
from sculpt.errors import ConfigError, InputError
from sculpt.search.images import describe_data
from sculpt.search.sampling.feasibility import check_study, total_trials
from sculpt.study_file import load_study
from sculpt.trial import run_seed
from sculpt.trial_setup import TrialSetup
from studies import write_study

WIDENING, BLOCKS = 3, 1


@pytest.fixture(scope="module")
def winner(tmp_path_factory):
    """Return the exported candidate of a tiny study."""
    folder = tmp_path_factory.mktemp("first")
    path = write_study(
        folder,
        space__parameters={"widening": [WIDENING], "blocks": [BLOCKS]},
        search__trials="all",
        search__replicates=1,
    )
    sculpt.export_trial(sculpt.run(path), 0, folder / "winner")
    return folder / "winner"


def write_transfer(folder: Path, winner: Path, **changes: Any) -> Path:
    """Write a study that takes the winner's mask, with its weights and with others."""
    trained = {"name": "from_bundle", "bundle": str(winner)}
    parameters = {
        "widening": [WIDENING],
        "blocks": [BLOCKS],
        "pruning.initializer": [trained, {"name": "ldi"}],
        "pruning.criterion": [trained],
        "pruning.repair": [False],
    }
    settings: dict[str, Any] = {
        "study": "transfer",
        "space__parameters": parameters,
        "search__trials": "all",
        "search__sampler": "grid",
        "search__replicates": 1,
    }
    return write_study(folder, **settings | changes)


def settings(winner: Path, **pruning: Any) -> dict[str, Any]:
    trained = {"name": "from_bundle", "bundle": str(winner)}
    return {"initializer": trained, "criterion": trained, "repair": False} | pruning


def check(path: Path) -> Any:
    study = load_study(path)
    return check_study(study, describe_data(study))


@pytest.mark.slow
def test_a_mask_and_weights_start_another_study(tmp_path, winner):
    path = write_transfer(tmp_path, winner)
    assert [corner["reason"] for corner in check(path)["corners"]] == [None, None]
    results = sculpt.run(path)
    bundle = read_bundle(winner / "network.safetensors")
    ways = [f"from_bundle(bundle={winner})", "ldi"]
    for number, way in enumerate(ways):
        record = results.record(number)
        assert record["params"]["pruning.initializer"] == way
        assert record["kept_parameters"] == record["budget"]
        results.copy_network(number, tmp_path / f"{number}.safetensors")
        taken = read_bundle(tmp_path / f"{number}.safetensors")
        assert all(torch.equal(taken.masks[name], mask) for name, mask in bundle.masks.items())
    # It goes on, and what is finished is not run again.
    assert len(sculpt.run(path, overrides={"search.confirm": {"top": 1, "seeds": 2}}).trials) == 3


@pytest.mark.slow
def test_fine_tuning_begins_where_the_training_ended(tmp_path, winner, splits):
    """Without training, what is measured is the trained network, bit for bit."""
    study = load_study(
        write_study(
            tmp_path, pruning=settings(winner), model__widening=WIDENING, training__epochs=0
        )
    )
    budget = sculpt.load(winner).record["budget"]
    outcomes = [
        run_seed(TrialSetup(0, study, "candidate", {}, budget, [5, 6]), splits, splits.train, seed)
        for seed in (5, 6)
    ]
    bundle = read_bundle(winner / "network.safetensors")
    for outcome in outcomes:
        for name, tensor in outcome.model.state_dict().items():
            kept = bundle.masks.get(name, torch.ones(tensor.shape, dtype=torch.bool))
            assert bits(tensor[kept]) == bits(bundle.state[name][kept]), name
            assert not tensor[~kept].any(), name
    assert outcomes[0].record.val_error == sculpt.load(winner).metadata["val_error"]


@pytest.mark.slow
def test_trained_weights_are_not_repaired(tmp_path, winner, splits):
    path = write_transfer(
        tmp_path,
        winner,
        space__parameters={
            "widening": [WIDENING],
            "pruning.initializer": [{"name": "from_bundle", "bundle": str(winner)}],
            "pruning.repair": [True, "exact"],
        },
    )
    with pytest.raises(ConfigError, match=r"pruning\.repair must be false .* but is True"):
        check(path)
    # Nor where nothing was checked before.
    study = load_study(write_study(tmp_path, pruning=settings(winner, repair="exact")))
    wide = study.with_parameters({"widening": WIDENING})
    with pytest.raises(InputError, match="the repair would undo the trained weights"):
        run_seed(TrialSetup(0, wide, "candidate", {}, 4874, [0]), splits, splits.train, 0)


@pytest.mark.slow
def test_points_that_it_does_not_fit_are_infeasible(tmp_path, winner):
    trained = {"name": "from_bundle", "bundle": str(winner)}
    path = write_transfer(
        tmp_path,
        winner,
        space__parameters={
            "widening": [2, WIDENING],
            "blocks": [1, 2],
            "pruning.criterion": [trained, {"name": "random"}],
        },
    )
    found = check(path)
    reasons = {
        (corner["params"]["widening"], corner["params"]["blocks"]): corner["reason"]
        for corner in found["corners"]
        if corner["params"]["pruning.criterion"] != "random"
    }
    assert reasons[WIDENING, 1] is None
    assert "stages.0.1.first.conv.weight is only in this network" in reasons[WIDENING, 2]
    assert "the budget leaves 4874; set the budget to" in reasons[2, 1]
    assert found["trials"] == 1 + 4 + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 5000}, r"keeps 4874 .* leaves 5000; set the budget to 4874, or \d+ under"),
        ({"pruning": {"scope": "layer"}}, "another one would with scope layer"),
        ({"pruning": {"effective": True, "granularity": "kernel"}}, "granularity kernel"),
        ({"model__activation": "tanh", "model__stem_width": 3}, "none of the same name and shape"),
    ],
    ids=["budget", "scope", "kernels", "shapes"],
)
def test_what_does_not_fit_is_one_error_before_anything_is_trained(
    tmp_path, winner, changes, message, sculpt_command
):
    path = write_transfer(tmp_path, winner, **changes)
    for command in ("check", "run"):
        code, _, errors = sculpt_command(command, path)
        assert code == 2
        assert re.search(message, " ".join(errors.split())), errors
    assert not (tmp_path / "tiny.db").exists()


@pytest.mark.slow
def test_a_file_that_fits_no_point_is_refused_though_others_could_be_run(tmp_path, winner):
    trained = {"name": "from_bundle", "bundle": str(winner)}
    parameters = {"widening": [2], "pruning.criterion": [{"name": "random"}, trained]}
    study = load_study(write_transfer(tmp_path, winner, space__parameters=parameters))
    message = r"^pruning\.criterion: from_bundle\(bundle=.*winner\) must fit at least one point"
    with pytest.raises(ConfigError, match=message):
        total_trials(study, describe_data(study))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["space", "base"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_missing_file_is_one_error(tmp_path, winner, command, where, sculpt_command):
    path = write_transfer(tmp_path, tmp_path / "gone")
    if where == "base":
        initializer = {"name": "from_bundle", "bundle": str(tmp_path / "gone")}
        path = write_transfer(
            tmp_path,
            winner,
            space__parameters={"widening": [2]},
            pruning={"initializer": initializer, "repair": False},
        )
    code, _, errors = sculpt_command(command, path)
    assert code == 2
    assert f"sculpt: {tmp_path / 'gone'}: must be a readable safetensors file" in errors
    assert not (tmp_path / "tiny.db").exists()


@pytest.mark.slow
def test_a_base_that_it_does_not_fit_is_refused(tmp_path, winner):
    pruning = settings(winner, criterion={"name": "random"})
    path = write_study(tmp_path, pruning=pruning, model__stem_width=3)
    with pytest.raises(InputError, match="none of the same name and shape"):
        check(path)


def test_a_study_must_name_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"pruning\.criterion\.bundle: must be given"):
        load_study(write_study(tmp_path, pruning={"criterion": {"name": "from_bundle"}}))


@pytest.mark.slow
def test_the_same_file_elsewhere_is_another_study(tmp_path, winner):
    """As with magnitude's checkpoint: samplers know a choice by its text."""
    one = load_study(write_transfer(tmp_path, winner))
    other = Study.model_validate(
        json.loads(one.model_dump_json().replace(str(winner), "elsewhere"))
    )
    assert one.fingerprint() != other.fingerprint()
