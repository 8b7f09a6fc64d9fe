"""Runtimes side by side: every row is there, and what is written into a folder can be read."""

import json
import sys
from typing import Any

import pytest
import torch
from test_folder import COMPILES, QUICK_FLAGS, network
from typer.testing import CliRunner

import sculpt
from sculpt.bundle import write_bundle
from sculpt.cli import app
from sculpt.errors import InputError
from sculpt.export import latency
from sculpt.export.c_code import library
from sculpt.export.folder import export_network, measure_folder
from sculpt.export.formats import Network
from sculpt.export.latency import time_side_by_side
from sculpt.export.manifest import MANIFEST
from sculpt.exports import verify
from studies import write_study

BASE = {"name": "resnet", "options": {"widening": 1, "blocks": 1, "stem_width": 2}}
CONTENDERS = [
    *([("compact", "c")] if COMPILES else []),
    ("compact", "onnxruntime"),
    ("compact", "torch"),
    ("wide", "onnxruntime"),
    ("wide", "torch"),
]
BASES = [("base", "onnxruntime"), ("base", "torch")]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(latency, "TURN_SECONDS", 1e-6)
    monkeypatch.setattr(latency, "available_threads", lambda: 2)
    monkeypatch.setattr(library, "FLAGS", QUICK_FLAGS)


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "winner"
    export_network(network(), folder, ["bundle"], {"verdict": "better", "base_model": BASE})
    return folder


def check_rows(document: dict[str, Any], contenders: list[tuple[str, str]]) -> None:
    settings = {(batch, threads) for batch in (1, 64) for threads in (1, document["threads"])}
    assert {(row["batch"], row["threads"]) for row in document["rows"]} == settings
    for batch, threads in settings:
        here = [r for r in document["rows"] if (r["batch"], r["threads"]) == (batch, threads)]
        assert [(row["network"], row["runtime"]) for row in here] == contenders
        for row in here:
            seconds = row["seconds"]
            assert 0 < seconds["low"] <= seconds["median"] <= seconds["high"] < 10
            assert row["ratio"] > 0
        (own,) = [r for r in here if (r["network"], r["runtime"]) == ("wide", "onnxruntime")]
        assert own["ratio"] == 1


@pytest.mark.usefixtures("quick")
def test_every_runtime_at_every_setting():
    loaded, seen = network(), []
    images = torch.randn(8, 3, 16, 16)
    timed = Network(loaded.model, loaded.masks, loaded.metadata, images)
    found = time_side_by_side(timed, turns=2, on_row=seen.append)
    assert found["rows"] == seen
    check_rows(found, CONTENDERS)
    assert found["threads"] == 2
    assert found["versions"]["torch"] == torch.__version__
    assert [row["runtime"] for row in found["missing"]] == ([] if COMPILES else ["c"])


@pytest.mark.usefixtures("quick")
def test_without_a_runtime_the_others_are_timed(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setenv("CC", "no-such-compiler")
    loaded = network()
    images = torch.randn(2, 3, 16, 16)
    timed = Network(loaded.model, loaded.masks, loaded.metadata, images)
    found = time_side_by_side(timed, turns=1)
    assert {row["runtime"] for row in found["rows"]} == {"torch"}
    assert found["reference"] == {"network": "wide", "runtime": "torch"}
    missing = {row["runtime"]: row["reason"] for row in found["missing"]}
    assert "pip install" in missing["onnxruntime"]
    assert "no-such-compiler" in missing["c"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_what_was_measured_stands_in_the_folder(exported):
    found = measure_folder(exported, turns=1)
    check_rows(found, CONTENDERS + BASES)
    record = sculpt.load(exported).record
    assert record["latency"] == found["latency"] > 0
    assert record["latency_by"].startswith("torch, batch 1, 1 thread, ")
    assert verify(exported)["ok"]  # its checksums are those of what stands there now
    assert json.loads((exported / MANIFEST).read_text())["latency"]["rows"] == found["rows"]
    card = (exported / "README.md").read_text()
    section = card.partition("## Latency")[2].partition("##")[0]
    assert section.count("| base | onnxruntime |") == 4
    again = measure_folder(exported, "onnxruntime", turns=1)
    assert sculpt.load(exported).record["latency_by"].startswith("onnxruntime")
    assert sculpt.load(exported).record["latency"] == again["latency"]


@pytest.mark.parametrize(
    "model",
    [
        {"name": "resnet", "options": {"widening": 500.0}},
        {"name": "../x", "options": {}},
        {"name": "resnet", "options": {"width": 1}},
        "resnet",
    ],
)
def test_a_base_that_cannot_be_built_is_refused(exported, model):
    """The manifest may come from anybody."""
    manifest = json.loads((exported / MANIFEST).read_text())
    changed = manifest | {"facts": {"base_model": model}}
    (exported / MANIFEST).write_text(json.dumps(changed))
    with pytest.raises(InputError, match=MANIFEST):
        measure_folder(exported, turns=1)


def test_a_bundle_that_was_changed_is_not_written_down_as_exported(exported):
    other = network()
    other.metadata["trial"] = 7
    write_bundle(exported / "network.safetensors", other.model, other.masks, other.metadata)
    with pytest.raises(InputError, match="was changed since"):
        measure_folder(exported, turns=1)


@pytest.mark.usefixtures("quick")
def test_a_runtime_that_is_not_there_cannot_be_the_records(exported, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    before = {file: file.read_bytes() for file in exported.iterdir()}
    with pytest.raises(InputError, match="no-such-compiler"):
        measure_folder(exported, "c", turns=1)
    assert {file: file.read_bytes() for file in exported.iterdir()} == before


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_command_makes_latency_an_objective(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "available_threads", lambda: 1)
    monkeypatch.chdir(tmp_path)
    path = write_study(tmp_path, search__trials=3)
    results = sculpt.run(path)

    def call(*arguments: str, code: int = 0) -> str:
        ended = CliRunner().invoke(app, [*map(str, arguments)])
        assert ended.exit_code == code, ended.output
        return ended.stdout

    for trial in ("base", "0"):
        call("export", path, "--trial", trial, "--output", f"trial-{trial}")
        shown = call("latency", f"trial-{trial}", "--study", path, "--turns", "1", "--json")
        found = json.loads(shown)
        check_rows(found, CONTENDERS + BASES)
        record = results.record(trial if trial == "base" else int(trial))
        assert record["latency"] == record["objectives"]["latency"] == found["latency"]
        assert record["latency_by"] == found["latency_by"]
    front = json.loads(call("pareto", path, "--objectives", "val_error,latency", "--json"))
    assert front["missing"] == 1  # trial 1 was not measured
    assert {row["trial"] for row in front["front"]} <= {"base", 0}
    assert front["notes"] == []
    assert "times as fast" in call("latency", "trial-0", "--turns", "1")
    call("latency", "trial-0", "--study", path, "--turns", "1", "--runtime", "onnxruntime")
    front = json.loads(call("pareto", path, "--objectives", "val_error,latency", "--json"))
    assert "not comparable" in front["notes"][0]
    (tmp_path / "other").mkdir()
    other = write_study(tmp_path / "other", study="other", search__trials=2, search__seed=5)
    sculpt.run(other)
    with pytest.raises(InputError, match="one of the study other"):
        sculpt.latency("trial-0", sculpt.open_results(other), turns=1)
