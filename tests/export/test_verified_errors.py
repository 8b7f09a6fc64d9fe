"""Recorded errors are counted again where the images are at hand, and found out when they lie."""

import copy
import json
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sculpt
from sculpt import recorded_errors
from sculpt.bundle import write_bundle
from sculpt.cli import app
from sculpt.data import make_splits
from sculpt.data.digits import Digits
from sculpt.documents import assign, lookup
from sculpt.errors import SculptWarning
from sculpt.export.loading import NETWORK_FILE, load
from sculpt.export.manifest import MANIFEST, describe_file
from sculpt.recorded_errors import CLOSE, find_wrong_and_close
from sculpt.training.loss_and_error import evaluate
from studies import write_study

SPLITS = make_splits(Digits().read(), validation_fraction=0.25, train_images=200)
NOTHING = object()


@pytest.fixture(autouse=True)
def _no_images_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCULPT_DATA", raising=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trial that was trained on digits, which are always at hand."""
    folder = tmp_path_factory.mktemp("study")
    small = {"search__trials": 2, "search__replicates": 1, "training__epochs": 6}
    results = sculpt.run(write_study(folder, **small))
    sculpt.export_trial(results, 0, folder / "winner")
    return folder / "winner"


def retold(exported: Path, folder: Path, changes: dict[str, Any], *, weight: float = 1.0) -> Path:
    """Return a copy of an export whose network's file says other things, with right checksums.

    `NOTHING` leaves a key out; every weight is multiplied.
    """
    other = Path(shutil.copytree(exported, Path(mkdtemp(dir=folder)) / "other"))
    loaded = load(exported)
    metadata = copy.deepcopy(loaded.metadata)
    for key, value in changes.items():
        assign(metadata, key, value)
        if value is NOTHING:
            *parents, last = key.split(".")
            del (lookup(metadata, ".".join(parents)) if parents else metadata)[last]
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter *= weight
    write_bundle(other / NETWORK_FILE, loaded.model, loaded.masks, metadata)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["files"][NETWORK_FILE] |= describe_file(other / NETWORK_FILE)
    (other / MANIFEST).write_text(json.dumps(manifest))
    return other


def errors_of(folder: Path, **options: Any) -> dict[str, tuple[bool | None, str]]:
    """Return by error whether it agrees, and the detail."""
    checks = sculpt.verify(folder, **options)["checks"]
    found = [check for check in checks if check["check"].endswith(" error")]
    assert {check["file"] for check in found} <= {NETWORK_FILE}
    return {check["check"].split()[0]: (check["ok"], check["detail"]) for check in found}


def test_a_trial_has_the_error_that_is_recorded(exported):
    document = sculpt.verify(exported)
    assert document["ok"]
    error = load(exported).metadata["val_error"]
    text = f"{100 * error:.2f} % recomputed, {100 * error:.2f} % recorded (50 images)"
    assert errors_of(exported) == {"validation": (True, text)}
    assert SPLITS.fingerprint == load(exported).record["data_fingerprint"]


@pytest.mark.parametrize("images", [10, -1])
def test_an_error_that_was_not_measured_is_found_out(images, exported, tmp_path):
    error = load(exported).metadata["val_error"]
    false = retold(exported, tmp_path, {"val_error": error + images / 50})
    shown = CliRunner().invoke(app, ["verify", str(false), "--json"])
    assert shown.exit_code == 1
    document = json.loads(shown.stdout)
    assert not document["ok"]
    (failed,) = [check for check in document["checks"] if not check["ok"]]
    assert (failed["file"], failed["check"]) == (NETWORK_FILE, "validation error")
    assert "% recomputed" in failed["detail"]


def test_a_test_error_is_that_of_the_weights_or_is_not_checked(exported, tmp_path):
    _, error = evaluate(load(exported).model, SPLITS.test)
    key = "record.config.training.protocol"
    for recorded, protocol, expected, said in [
        (error, "validation", True, "(359 images)"),
        (error / 2, "validation", False, "(359 images)"),
        (error / 2, "lowest_test", None, "the lowest of several evaluations"),
        (error, "other", None, "does not say how it was measured"),
    ]:
        changes = {"test_error": recorded, key: protocol}
        found = errors_of(retold(exported, tmp_path, changes))
        assert found["validation"][0] is True
        ok, detail = found["test"]
        assert ok is expected
        assert said in detail


def images_in(folder: Path) -> Path:
    """Write ten classes of grey 8x8 images into a folder."""
    for split, count in (("train", 2), ("test", 1)):
        for label in range(10):
            (folder / split / str(label)).mkdir(parents=True)
            for number in range(count):
                image = Image.new("L", (8, 8), 20 * label + number)
                image.save(folder / split / str(label) / f"{number}.png")
    return folder


def test_images_that_are_not_at_hand(exported, tmp_path):
    mnist = {"name": "mnist", "download": True, "validation_fraction": 0.25}
    folder = retold(exported, tmp_path, {"record.config.data": mnist})
    shown = CliRunner().invoke(app, ["verify", str(folder), "--json", "--data-root", "nowhere"])
    assert shown.exit_code == 0
    document = json.loads(shown.stdout)
    assert document["ok"]
    (check,) = [check for check in document["checks"] if check["ok"] is None]
    nowhere = tmp_path / "nowhere" / "MNIST"
    assert check["check"] == "validation error"
    assert check["detail"].startswith("the images are not at hand (MNIST must have its 4 files")
    assert f"under {nowhere.parent}, but MNIST/raw/" in check["detail"]
    assert check["detail"].endswith("is not there); give --data-root")
    assert not nowhere.parent.exists()


def test_a_file_does_not_say_which_folder_is_read(exported, tmp_path):
    trap = images_in(tmp_path / "trap")
    data = {"name": "image_folder", "size": 8, "channels": 1, "root": str(trap)}
    changes = {"record.config.data": data | {"validation_fraction": 0.5}}
    folder = retold(exported, tmp_path, changes)
    ok, detail = errors_of(folder)["validation"]
    assert ok is None
    assert "root is empty); give --data-root" in detail
    ok, detail = errors_of(folder, data_root=trap)["validation"]
    assert ok is None
    assert detail == "the images at hand are not those that the error was recorded on"
    folder = retold(exported, tmp_path, changes | {"record.data_fingerprint": NOTHING})
    _, detail = errors_of(folder, data_root=trap)["validation"]
    assert detail.endswith("(10 images)"), "then they are read"


@pytest.mark.parametrize(
    ("key", "value", "expected", "said"),
    [
        ("record", NOTHING, None, "does not say which images"),
        ("record", "[]", None, "does not say which images"),
        ("record.config", [], None, "does not say which images"),
        ("record.config.data", NOTHING, None, "does not say which images"),
        ("record.config.data", {}, None, "its data.name is not understood (Field required)"),
        ("record.config.data.name", ["digits"], None, "its data.name is not understood"),
        ("record.config.data.name", "../digits", None, "unknown here (data set must be one of"),
        ("record.config.data.wings", 2, None, "its data.wings is not understood"),
        ("record.config.data.validation_fraction", 2.0, None, "validation_fraction is not"),
        ("record.config.data.train_images", 10**400, None, "its data.train_images is not"),
        ("record.config.data.split_seed", 10**400, None, "its data.split_seed is not"),
        ("record.config.data.split_seed", 1, None, "are not those that the error was"),
        ("record.config.data", {"name": "image_folder", "size": -1}, None, "its data.size is not"),
        ("record.data_fingerprint", ["?"], None, "are not those that the error was"),
        ("record.config.search", {"trials": -1}, True, "(50 images)"),
        ("record.config.space", NOTHING, True, "(50 images)"),
        ("record.runs", NOTHING, True, "(50 images)"),
        ("record.runs", [3, {"seed": 0}], True, "(50 images)"),
        ("val_error", "small", False, "must be a share from 0 to 1, but is 'small'"),
        ("val_error", True, False, "must be a share from 0 to 1, but is True"),
        ("val_error", 10**400, False, "must be a share from 0 to 1, but is 1000"),
    ],
)
def test_what_a_file_may_say(key, value, expected, said, exported, tmp_path):
    ok, detail = errors_of(retold(exported, tmp_path, {key: value}))["validation"]
    assert ok is expected
    assert said in detail
    assert len(detail) < 500


def test_nothing_is_checked_that_is_not_recorded(exported, tmp_path):
    assert errors_of(retold(exported, tmp_path, {"val_error": None})) == {}


def test_images_of_another_size_are_not_read(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded_errors, "load_data", lambda study: pytest.fail("they were read"))
    data = {"name": "image_folder", "size": 8000, "channels": 1}
    folder = retold(exported, tmp_path, {"record.config.data": data})
    _, detail = errors_of(folder, data_root=images_in(tmp_path / "images"))["validation"]
    assert detail == "the images at hand are not those that the error was recorded on"


PLUGIN = """
from sculpt.registry import DATASETS
from sculpt.data.digits import Digits

@DATASETS.register("digits_of_somebody")
class DigitsOfSomebody(Digits):
    def __init__(self, *, folder: str = ""):
        self.folder = folder
"""


def test_plugins_are_never_imported_by_a_file(exported, tmp_path, monkeypatch):
    name = "plugin_with_digits"
    (tmp_path / f"{name}.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = {"plugins": [name], "record.config.plugins": [name]}
    folder = retold(exported, tmp_path, plugins)
    assert errors_of(folder)["validation"][0] is True
    folder = retold(exported, tmp_path, plugins | {"record.config.data.name": "digits_of_somebody"})
    ok, detail = errors_of(folder)["validation"]
    assert (ok, "unknown here" in detail) == (None, True)
    assert name not in sys.modules
    __import__(name)
    try:
        assert errors_of(folder)["validation"][0] is True
        data = {"name": "digits_of_somebody", "folder": "/etc"}
        folder = retold(exported, tmp_path, {"record.config.data": data})
        ok, detail = errors_of(folder)["validation"]
        assert ok is None
        assert "texts may be paths" in detail
    finally:
        recorded_errors.DATASETS._entries.pop("digits_of_somebody")
        sys.modules.pop(name)


def test_a_network_that_diverged(exported, tmp_path):
    for error, expected in ((1.0, True), (0.9, False)):
        changes = {"diverged": True, "val_error": error}
        folder = retold(exported, tmp_path, changes, weight=torch.nan)
        with pytest.warns(SculptWarning, match="diverged") as caught:
            found = errors_of(folder)
        assert len(caught) == 1
        assert found["validation"][0] is expected


def test_what_is_too_close_to_call():
    logits = torch.tensor(
        [
            [10.0, 9.0, -20.0],  # of 20 a twentieth
            [10.0, 9.0, -20.0],
            [10.0, -20.0, 9.0],
            [0.0, 0.0, 0.0],
            [torch.nan, 1.0, 0.0],
            [torch.inf, 1.0, 0.0],
            [5.0, 5.0, -1.0],
        ]
    )
    labels = torch.tensor([0, 1, 1, 1, 1, 0, 2])
    wrong, close = find_wrong_and_close(logits, labels, 0.0501)
    assert wrong.tolist() == [False, True, True, True, True, True, True]
    assert close.tolist() == [True, True, False, True, False, False, False]
    _, close = find_wrong_and_close(logits, labels, 0.0499)
    assert close.tolist() == [False, False, False, True, False, False, False]


@pytest.mark.parametrize("precision", [*CLOSE, "unknown"])
def test_images_that_are_close_may_be_counted_differently(precision, exported, tmp_path):
    """As many as are close by the precision that the error was recorded in, and not one more."""
    model, images = load(exported).model, SPLITS.validation
    share = CLOSE.get(precision, CLOSE["bfloat16"])
    with torch.no_grad():
        wrong, close = find_wrong_and_close(model(images.inputs()), images.labels, share)
    seed = load(exported).metadata["seed"]
    runs = [{"seed": seed + 1}, {"seed": seed, "training": {"precision": precision}}]
    for more, expected in ((0, True), (1, False)):
        error = (int(wrong.sum()) - int(close.sum()) - more) / len(images)
        folder = retold(exported, tmp_path, {"val_error": error, "record.runs": runs})
        ok, detail = errors_of(folder)["validation"]
        assert ok is expected
        assert ("too close to call" in detail) == bool(close.any())
