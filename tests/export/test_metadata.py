"""What a network's file says about it: all that is needed to build it anew, and nothing private."""

import json
from dataclasses import replace

import pytest
from whole_records import whole_layer, whole_record, whole_run

from sculpt.export.metadata import describe_network
from sculpt.record import TrialRecord
from sculpt.typed_json import from_json, to_json

CONFIG = {
    "model": {"name": "resnet", "widening": 2, "blocks": [1, 2, 3]},
    "data": {"name": "digits", "root": "/home/me/data", "download": True, "split_seed": 0},
    "pruning": {"data": {"name": "digits", "root": "/home/me/more"}, "scope": "global"},
    "storage": "postgresql://me:secret@server/db",
    "plugins": ["my_lab"],
}
RECORD = from_json(
    TrialRecord,
    whole_record(
        [0.1, 1.1],
        trial=3,
        params={"widening": 2},
        config=CONFIG,
        layers=[whole_layer("stem")],
        runs=[whole_run(0.1, 0), whole_run(1.1, 1, diverged=True)],
    ),
    "a record",
)


def test_what_is_said_of_a_network():
    before = to_json(RECORD)
    found = describe_network(RECORD, 1)
    assert to_json(RECORD) == before
    assert found["model"] == {"name": "resnet", "options": {"widening": 2, "blocks": [1, 2, 3]}}
    assert (found["study"], found["trial"], found["params"]) == ("tiny", 3, {"widening": 2})
    assert (found["seed"], found["val_error"], found["diverged"]) == (1, 1.1, True)
    assert found["input"] == before["input"]
    assert found["plugins"] == ["my_lab"]
    assert found["versions"] == before["versions"]
    record = found["record"]
    assert record.keys() == before.keys()
    assert record["layers"] == before["layers"]
    left_out = before["runs"][0].keys() - record["runs"][0].keys()
    assert left_out == {"history", "layers", "signal"}


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
    config = CONFIG | {"pruning": pruning, "space": space}
    record = replace(RECORD, config=config, params={"pruning.initializer": label})
    found = describe_network(record, 0)
    assert "/home/me" not in json.dumps(found)
    assert "../old" not in json.dumps(found)
    assert found["params"] == {"pruning.initializer": "from_bundle(bundle=winner)"}
    assert found["record"]["params"] == found["params"]
    chosen = found["record"]["config"]["pruning"]["criterion"]
    assert chosen == {"name": "magnitude", "checkpoint": "network.safetensors"}
    assert record.params == {"pruning.initializer": label}


def test_a_seed_that_the_trial_has_not():
    with pytest.raises(ValueError, match="one of 0, 1, but got 7"):
        describe_network(RECORD, 7)
