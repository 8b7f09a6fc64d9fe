"""Joining a study that others run: its own settings, exact totals, one clear message."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from watchers import Interrupt

import sculpt
from sculpt.errors import ConfigError, InputError
from sculpt.search.progress import Watcher
from sculpt.storage.opening import open_store
from sculpt.storage.store import TOTAL
from studies import check_complete, write_study


def begin(path: Path) -> None:
    """Begin a study, and leave everything to do."""
    with pytest.raises(KeyboardInterrupt):
        sculpt.run(path, watcher=Interrupt())


@pytest.mark.slow
def test_a_worker_finishes_what_another_began(tmp_path, sculpt_command):
    path = write_study(tmp_path, search__replicates=1)
    begin(path)
    # The file may have changed: what is run stands in the storage.
    write_study(tmp_path, search__replicates=1, training__epochs=2, search__trials=3)
    code, out, err = sculpt_command("worker", path, "--device", "cpu", "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert (printed["study"], printed["finished_here"]) == ("tiny", 4)
    assert printed["trials"]["complete"] == 4
    results = check_complete(path, 4)
    assert results.record(0)["config"]["training"]["epochs"] == 1
    # By its name, and with nothing left to do.
    again = sculpt_command("worker", "tiny", "--storage", f"{tmp_path}/tiny.db", "--device", "cpu")
    assert (again[0], "0 trial(s) finished here, and nothing is left to do" in again[1]) == (
        0,
        True,
    )


def test_a_worker_begins_no_study(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    code, _, error = sculpt_command("worker", path)
    assert (code, "Run the study first" in error) == (2, True)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]
    begin(path)
    code, _, error = sculpt_command("worker", "another", "--storage", f"{tmp_path}/tiny.db")
    assert (code, "run it first" in error) == (2, True)


def test_a_worker_changes_no_settings(tmp_path, sculpt_command):
    path = write_study(tmp_path)
    code, _, error = sculpt_command("worker", path, "--set", "training.epochs=2")
    assert code == 2
    assert "must train what the study was started with, so --set takes only data.root" in error
    begin(path)
    with pytest.raises(ConfigError, match=r"data\.root: must be one of the keys known here"):
        sculpt.join(path, overrides={"data.root": "/images"})


def make_images(folder: Path, seed: int) -> Path:
    """Make a tree of small images of two classes."""
    draw = np.random.default_rng(seed)
    for part in ("train", "test"):
        for name in ("light", "dark"):
            (folder / part / name).mkdir(parents=True)
            for number in range(40):
                low = 128 if name == "light" else 0
                pixels = draw.integers(low, low + 128, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{number}.png")
    return folder


@pytest.mark.slow
def test_images_may_lie_elsewhere_but_must_be_the_same(tmp_path):
    images, others = make_images(tmp_path / "images", 0), make_images(tmp_path / "others", 1)
    data = {"name": "image_folder", "root": str(images), "validation_fraction": 0.25}
    changes: dict[str, Any] = {"search__trials": 2, "search__replicates": 1}
    begin(write_study(tmp_path, data=data, **changes))
    moved = shutil.move(images, tmp_path / "moved")
    storage = f"{tmp_path}/tiny.db"
    with pytest.raises(InputError, match="images"):  # they are not where they were
        sculpt.join("tiny", storage)
    with pytest.raises(ConfigError, match="on the images it was started with"):
        sculpt.join("tiny", storage, overrides={"data.root": str(others)})
    # The file of this machine says where they are.
    path = write_study(tmp_path, data=data | {"root": str(moved)}, **changes)
    sculpt.join(path)
    check_complete(path, 2)
    sculpt.join("tiny", storage, overrides={"data.root": str(moved)})


class Raise(Watcher):
    """Asks for more trials when the first has finished, as `sculpt run` would elsewhere."""

    def __init__(self, path: Path, total: int):
        self.path = path
        self.total = total

    def trial_finished(self, *told: object) -> None:
        open_store(self.path).candidates.set_user_attr(TOTAL, self.total)


@pytest.mark.slow
def test_a_total_that_is_raised_is_followed(tmp_path):
    path = write_study(tmp_path, search__trials=2, search__replicates=1)
    begin(path)
    sculpt.join(path, device="cpu", watcher=Raise(path, 5))
    check_complete(path, 5)


@pytest.mark.slow
def test_a_run_and_two_workers_reach_exactly_the_total(tmp_path):
    path = write_study(tmp_path, search__trials=5, training__epochs=2)
    begin(path)
    commands = [["run", str(path)], ["worker", str(path), "--workers", "2", "--device", "cpu"]]
    commands += [["worker", "tiny", "--storage", f"{tmp_path}/tiny.db"]]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "sculpt", *command, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = [process.communicate(timeout=300) for process in started]
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
    check_complete(path, 5)
    assert json.loads(ended[0][0])["trials"]["complete"] == 5
