"""A study file to begin with runs as it is."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from manual import ROOT
from test_cli import image_tree

import sculpt
from sculpt import registry
from sculpt.errors import DataError, InputError

SMALL = {"training.epochs": 1, "search.replicates": 1, "search.trials": 2}


def asked_for(path):
    """Take all keys that are shown and not set, and set them."""
    text = path.read_text()
    found = re.findall(r"^ *#(\w+):", text, flags=re.MULTILINE)
    path.write_text(re.sub(r"^( *)#(\w+:)", r"\1\2", text, flags=re.MULTILINE))
    return found


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """Let Python find modules in a folder, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_asked_for", set())
    yield
    sys.modules.pop("my_lab", None)


class TestWritten:
    def test_digits(self, tmp_path):
        (path,) = sculpt.write_study(tmp_path / "digits.yaml")
        assert sculpt.load_study(path) == sculpt.load_study(ROOT / "studies" / "digits.yaml")

    def test_an_image_folder(self, tmp_path):
        root = image_tree(tmp_path / "my images")
        (path,) = sculpt.write_study(tmp_path / "mine.yaml", "image_folder", root=str(root))
        assert yaml.safe_load(path.read_text())["data"]["root"] == str(root)
        assert sculpt.check(path)["trials"] == 5

    def test_code_of_one_s_own(self, tmp_path, own_module):
        path, module = sculpt.write_study(tmp_path / "waves.yaml", "import")
        assert module == tmp_path / "my_lab.py"
        assert sculpt.check(path)["trials"] == 3
        assert sculpt.load_study(path).task.metric == "rmse"

    @pytest.mark.parametrize("data", ["digits", "image_folder", "import"])
    def test_what_is_shown_may_be_set(self, tmp_path, data, own_module):
        root = str(image_tree(tmp_path / "images", 200)) if data == "image_folder" else None
        path, *_ = sculpt.write_study(tmp_path / "mine.yaml", data, root=root)
        assert asked_for(path) == ["train_images", "early_stopping", "confirm", "opponents"]
        found = sculpt.check(path)
        assert len(found["opponents"]) == 1
        study = sculpt.load_study(path)
        assert (study.data.train_images, study.search.confirm.top) == (300, 1)

    def test_its_comments_are_those_of_the_schema(self, tmp_path):
        (path,) = sculpt.write_study(tmp_path / "mine.yaml")
        text = path.read_text()
        for said in (
            "# Share of the training set held out for selection.\n  validation_fraction: 0.35\n",
            "# Filters of the stem; 16 in the paper.\n  stem_width: 1\n",
            "# The recipe, shared by base and candidates.\ntraining:\n",
        ):
            assert said in text
        assert max(map(len, text.splitlines())) <= 92


class TestRefused:
    @pytest.mark.parametrize("there", ["mine.yaml", "my_lab.py"])
    def test_a_file_that_is_there(self, tmp_path, there):
        (tmp_path / there).write_text("precious")
        with pytest.raises(InputError, match=rf"files that are new, but .*{there} .* already"):
            sculpt.write_study(tmp_path / "mine.yaml", "import")
        assert [path.name for path in tmp_path.iterdir()] == [there], "all are written, or none"
        assert (tmp_path / there).read_text() == "precious"

    def test_nothing_is_left_of_what_could_not_be_written(self, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(InputError, match="cannot be: No space left on device; choose"):
            sculpt.write_study(tmp_path / "mine.yaml")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["mine", "mine.txt", "-.yaml", "my study.yaml", ".yaml"])
    def test_a_name_that_no_study_has(self, tmp_path, name):
        with pytest.raises(InputError, match=r"must be called NAME\.yaml"):
            sculpt.write_study(tmp_path / name)

    def test_images_that_are_not_there(self, tmp_path):
        path = tmp_path / "mine.yaml"
        for data, root, message in (
            ("image_folder", None, "got none for image_folder; give --root"),
            ("digits", "images", "got 'images' for digits; leave --root out"),
            ("imagenot", None, "data must be one of digits, image_folder, import"),
        ):
            with pytest.raises(InputError, match=message):
                sculpt.write_study(path, data, root=root)
        with pytest.raises(DataError, match="one folder of images per class"):
            sculpt.write_study(path, "image_folder", root=str(tmp_path))
        assert not path.exists()


def run_line(line, folder):
    """Run a printed command as a shell would, in a folder."""
    called = f"{shlex.quote(sys.executable)} -m sculpt "
    command = re.sub("(python -m )?sculpt ", lambda _: called, line.strip(), count=1)
    command = command.replace("PYTHONPATH=. ", f"PYTHONPATH=.:{shlex.quote(str(ROOT))} ")
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "image_folder", "import"])
def test_each_command_names_the_next_ones(tmp_path, data, sculpt_command, monkeypatch):
    """From an empty folder to an exported network, by nothing but what was printed."""
    monkeypatch.chdir(tmp_path)
    root = ["--root", image_tree(Path("my images"))] if data == "image_folder" else []
    code, out, said = sculpt_command("init", "mine.yaml", "--data", data, *root)
    assert (code, out) == (0, "")
    check, run = said.split("next:\n")[1].splitlines()
    assert run_line(check, tmp_path).returncode == 0
    small = "".join(f" --set {key}={value}" for key, value in SMALL.items())
    done = run_line(f"{run} --storage 'here it is.db'{small}", tmp_path)
    assert done.returncode == 0, done.stderr
    report, export = done.stderr.split("next:\n")[1].splitlines()
    for line in (report, export):
        assert "--storage 'here it is.db'" in line
        done = run_line(line, tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine-report.html").exists()
    assert (tmp_path / "mine-best" / "network.safetensors").exists()
