"""A folder that somebody has edited is answered in words, whatever stands in it."""

import copy
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_folder import network

import sculpt
from sculpt.bundle import NETWORK_FILE, read_bundle, write_bundle
from sculpt.errors import InputError
from sculpt.export import folder as exported_folder
from sculpt.export.c_code.library import find_compiler
from sculpt.export.folder import export_network, measure_folder
from sculpt.export.manifest import CARD, MANIFEST, REFERENCE, describe_file, read_manifest

OTHERS = [None, "text", -1, 1.5, [], ["text"], {}, {"key": 1}, True]
TIMED = {
    "cpu": "a processor",
    "threads": 1,
    "versions": {"python": "3"},
    "reference": {"network": "wide", "runtime": "torch"},
    "rows": [
        {"network": "compact", "runtime": "torch", "batch": 1, "threads": 1, "ratio": 1.0}
        | {"seconds": {"median": 1.0, "low": 1.0, "high": 1.0}}
    ],
    "missing": [],
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "winner"
    base = {"name": "resnet", "options": {"widening": 1, "blocks": 1, "stem_width": 2}}
    facts: Any = {"verdict": "better", "base_model": base}
    export_network(network(), folder, ["state_dict"], facts)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def places(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the keys to every value of a document, and to the document itself."""
    yield before
    if isinstance(document, dict | list):
        keys = document if isinstance(document, dict) else range(len(document))
        for key in keys:
            yield from places(document[key], (*before, key))


def edited(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return a copy with another value at a place; without it, if the value is Ellipsis."""
    if not place:
        return {} if value is ... else value
    document = copy.deepcopy(document)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return document


def test_an_edited_manifest_is_read_as_it_was_written_or_refused(copied: Path) -> None:
    manifest = read_manifest(copied) | {"latency": TIMED}
    for place in places(manifest):
        for value in [*OTHERS, ...]:
            document = edited(manifest, place, value)
            (copied / MANIFEST).write_text(json.dumps(document))
            with suppress(InputError):
                assert read_manifest(copied) == document
    (copied / MANIFEST).write_text(
        json.dumps(manifest).replace('"bytes": ', '"bytes": 1e999, "x": ')
    )
    with pytest.raises(InputError, match="is not read"):
        read_manifest(copied)


def check_metadata(folder: Path, document: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify and time a folder whose network says something else of itself."""
    bundle = read_bundle(folder / NETWORK_FILE)
    model = network().model
    write_bundle(folder / NETWORK_FILE, model, bundle.masks, document)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][NETWORK_FILE] |= describe_file(folder / NETWORK_FILE)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setattr(exported_folder, "time_side_by_side", lambda *_, **__: copy.deepcopy(TIMED))
    for use in (sculpt.verify, measure_folder):
        with suppress(InputError):
            use(folder)


@pytest.mark.parametrize("value", ["text", ["text"]])
def test_an_edited_network_is_verified_and_timed_or_refused(
    value: Any, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = read_bundle(copied / NETWORK_FILE).metadata
    for key in metadata:
        check_metadata(copied, edited(metadata, (key,), value), monkeypatch)


@pytest.mark.slow
def test_whatever_a_network_says_of_itself(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = read_bundle(copied / NETWORK_FILE).metadata
    metadata["record"] |= {
        "seeds": [0, 1],
        "budget": 7,
        "config": {
            "pruning": {
                "initializer": {"name": "gaussian"},
                "criterion": {"name": "random"},
                "repair": False,
            },
            "training": {"epochs": 1, "protocol": "validation"},
            "data": {"name": "digits"},
        },
        "runs": [{"seed": 0, "training": {"precision": "float32"}}],
    }
    edits = [(place, value) for place in places(metadata) for value in [*OTHERS, ...]]
    for place, value in random.Random(0).sample(edits, len(edits) // 5):
        document = edited(metadata, place, value)
        if isinstance(document, dict):
            check_metadata(copied, document, monkeypatch)


def test_reference_images_of_something_else(copied: Path, sculpt_command: Any) -> None:
    for images, logits in [
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 6)),
        (torch.zeros(2, 3, 16, 16), torch.zeros(3, 7)),
        (torch.zeros(2, 3, 16, 16), torch.zeros(2, 7, dtype=torch.int64)),
        (torch.zeros(2, 3, 16, 16, dtype=torch.int64), torch.zeros(2, 7)),
        (torch.zeros(2, 4, 16, 16), torch.zeros(2, 7)),
        (torch.zeros(0, 3, 16, 16), torch.zeros(0, 7)),
        (torch.zeros(()), torch.zeros(())),
    ]:
        save_file({"images": images, "logits": logits}, copied / REFERENCE)
        assert sculpt_command("verify", copied)[0] == 1
        code, _, error = sculpt_command("latency", copied, "--turns", "1")
        assert (code, "must hold images and logits" in error) == (2, True)


@pytest.mark.parametrize("name", [MANIFEST, NETWORK_FILE, REFERENCE, "state_dict.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device", "nothing"])
def test_what_is_no_file(name: str, kind: str, copied: Path, sculpt_command: Any) -> None:
    path = copied / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    code, out, error = sculpt_command("verify", copied)
    assert code == (2 if name in (MANIFEST, NETWORK_FILE) else 1), error
    if code == 2:
        assert (out, error.count("\n")) == ("", 1)


@pytest.mark.parametrize("command", ["verify", "latency"])
@pytest.mark.parametrize("path", ["nul\0byte", "/dev/null", "/dev/zero", "absent", ""])
def test_what_is_no_folder(command: str, path: str, sculpt_command: Any) -> None:
    code, out, error = sculpt_command(command, path)
    assert (code, out) == (2, "")
    assert "must be a folder that sculpt export wrote" in error or "null byte" in error


def test_only_an_export_is_replaced(copied: Path, tmp_path: Path) -> None:
    """A manifest.json may be that of any program."""
    (copied / MANIFEST).write_text('{"name": "an extension of a browser"}')
    before = sorted(copied.iterdir())
    with pytest.raises(InputError, match="holds other files"):
        export_network(network(), copied, [], {})
    assert sorted(copied.iterdir()) == before
    for target in ("nul\0byte", "/dev/null", "/proc/nothing/there"):
        with pytest.raises(InputError, match="an export must go to a folder"):
            export_network(network(), target, [], {})


def test_a_folder_that_cannot_be_written(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported_folder, "time_side_by_side", lambda *_, **__: copy.deepcopy(TIMED))
    (copied / CARD).unlink()
    (copied / CARD).mkdir()
    (copied / CARD / "mine.txt").touch()
    with pytest.raises(InputError, match="must be a folder that can be written"):
        measure_folder(copied)


def test_a_compiler_s_command_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc '-O3")
    with pytest.raises(InputError, match=r"\$CC must be .* \(No closing quotation\)"):
        find_compiler()
