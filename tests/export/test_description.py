"""What a network's file says about it: all that is needed to build it anew, and nothing private."""

import json

import pytest

from sculpt.export.description import describe_network

RECORD = {
    "study": "tiny",
    "trial": 3,
    "role": "candidate",
    "params": {"widening": 2},
    "counting": "paper",
    "kept_parameters": 4874,
    "layers": [{"name": "stem"}],
    "input": {"channels": 1, "classes": 10},
    "versions": {"torch": "2"},
    "config": {
        "model": {"name": "resnet", "widening": 2, "blocks": [1, 2, 3]},
        "data": {"name": "digits", "root": "/home/me/data", "download": True, "split_seed": 0},
        "pruning": {"data": {"name": "digits", "root": "/home/me/more"}, "scope": "global"},
        "storage": "postgresql://me:secret@server/db",
        "plugins": ["my_lab"],
    },
    "runs": [
        {
            "seed": seed,
            "val_error": 0.1 + seed,
            "test_error": None,
            "diverged": seed == 1,
            "history": [{"epoch": 1}],
            "layers": [{"name": "stem"}],
            "signal": {},
            "seconds": {"train": 3.0},
        }
        for seed in (0, 1)
    ],
}


def test_what_is_said_of_a_network():
    before = json.dumps(RECORD)
    found = describe_network(RECORD, 1)
    assert json.dumps(RECORD) == before
    assert found["model"] == {"name": "resnet", "options": {"widening": 2, "blocks": [1, 2, 3]}}
    assert (found["study"], found["trial"], found["params"]) == ("tiny", 3, {"widening": 2})
    assert (found["seed"], found["val_error"], found["diverged"]) == (1, 1.1, True)
    assert found["input"] == RECORD["input"]
    assert found["plugins"] == ["my_lab"]
    assert found["versions"] == {"torch": "2"}
    record = found["record"]
    assert record.keys() == RECORD.keys()
    assert record["layers"] == RECORD["layers"]
    assert [set(run) for run in record["runs"]] == [
        {"seed", "val_error", "test_error", "diverged", "seconds"}
    ] * 2


def test_nothing_of_the_machine_is_given_away():
    text = json.dumps(describe_network(RECORD, 0))
    assert "secret" not in text
    assert "/home/me" not in text
    config = describe_network(RECORD, 0)["record"]["config"]
    assert config["data"] == {"name": "digits", "split_seed": 0}
    assert config["pruning"] == {"data": {"name": "digits"}, "scope": "global"}


def test_of_files_that_it_started_from_only_the_names_are_told():
    path, other = "/home/me/exports/winner", "../old/network.safetensors"
    label = f"from_bundle(bundle={path})"
    pruning = {"initializer": {"name": "ldi"}, "criterion": {"name": "magnitude"}}
    pruning["criterion"]["checkpoint"] = other
    space = {"parameters": {"pruning.initializer": [{"name": "from_bundle", "bundle": path}]}}
    config = RECORD["config"] | {"pruning": pruning, "space": space}
    record = RECORD | {"config": config, "params": {"pruning.initializer": label}}
    found = describe_network(record, 0)
    assert "/home/me" not in json.dumps(found)
    assert "../old" not in json.dumps(found)
    assert found["params"] == {"pruning.initializer": "from_bundle(bundle=winner)"}
    assert found["record"]["params"] == found["params"]
    chosen = found["record"]["config"]["pruning"]["criterion"]
    assert chosen == {"name": "magnitude", "checkpoint": "network.safetensors"}
    assert record["params"] == {"pruning.initializer": label}


def test_a_record_of_an_earlier_version():
    old = {key: value for key, value in RECORD.items() if key not in ("input", "versions")}
    old["config"] = {"model": {"name": "mlp"}}
    found = describe_network(old, 0)
    assert found["input"] is None
    assert found["model"] == {"name": "mlp", "options": {}}
    assert found["plugins"] == []


def test_a_seed_that_the_trial_has_not():
    with pytest.raises(ValueError, match="one of 0, 1, but got 7"):
        describe_network(RECORD, 7)
