"""The wheel that is published: what is in it, and that it needs no extra."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from manual import ROOT

UNPACKED = """
import importlib, pathlib, pkgutil, sys
sys.modules |= dict.fromkeys(sys.argv[2:])  # as if they were not installed
sys.meta_path[:] = [x for x in sys.meta_path if "editable" not in getattr(x, "__module__", "")]
sys.path.insert(0, sys.argv[1])
import sculpt
assert pathlib.Path(sculpt.__file__).is_relative_to(sys.argv[1]), sculpt.__file__
for name in sculpt.__all__:
    getattr(sculpt, name)
for module in pkgutil.walk_packages(sculpt.__path__, "sculpt."):
    try:
        if module.name != "sculpt.__main__":
            importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        assert error.name in sys.argv[2:], error
        print(module.name, "needs", error.name)
sculpt.check(sculpt.write_study("mine.yaml")[0])
"""


def done(*command, **more):
    found = subprocess.run(command, capture_output=True, text=True, **more)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the repository, made of its source archive as for publishing."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("sculpt", "tests", "docs"):
        cached = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=cached)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    done(sys.executable, "-m", "venv", folder / "tools")
    python = folder / "tools" / "bin" / "python"
    done(python, "-m", "pip", "install", "-q", "build", "twine")
    done(python, "-m", "build", "--outdir", folder / "dist", folder / "source")
    source, wheel = sorted((folder / "dist").iterdir(), key=lambda path: path.suffix)
    assert done(python, "-m", "twine", "check", "--strict", source, wheel).count("PASSED") == 2
    return wheel


@pytest.mark.slow
def test_it_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as packed:
        found = {name for name in packed.namelist() if ".dist-info/" not in name}
    endings = {".py", ".c", ".css", ".j2", ".js", ".typed"}
    files = (ROOT / "sculpt").rglob("*")
    kept = {str(path.relative_to(ROOT)) for path in files if path.suffix in endings}
    assert found == kept
    assert {Path(name).suffix for name in found} == endings


@pytest.mark.slow
def test_it_is_imported_without_extras(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "unpacked")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    words = [name.partition("=")[0].partition(">")[0].partition("[")[0] for name in extras]
    absent = {word.replace("-", "_") for word in words}
    assert {"onnx", "onnxruntime", "psycopg", "pyarrow", "pytest", "ray", "s3fs"} <= absent
    needs = done(sys.executable, "-I", "-c", UNPACKED, tmp_path / "unpacked", *absent, cwd=tmp_path)
    assert needs.splitlines() == ["sculpt.export.onnx_file needs onnx"]
