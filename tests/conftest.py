"""Real images for whoever tests with them, and a cache folder that is not the user's."""

import gc
import gzip
import os
import shutil
import sys
import tarfile
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from filelock import FileLock
from gpu_marks import pytest_configure as pytest_configure
from gpu_marks import pytest_ignore_collect as pytest_ignore_collect

from sculpt.cli import main
from sculpt.storage import sqlite_file

# Tests train tiny networks, which one thread trains fastest; what tests start inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that are started, hundreds, would each compile what they import: a second or more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _outside(folder: str, variable: str) -> Path:
    """Return a folder that lies outside the repository: $VARIABLE, or `shared` beside it has it.

    The test is skipped where it is in neither.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / folder
    found = Path(os.environ.get(variable) or beside)
    if not found.is_dir():
        pytest.skip(f"needs {found}; {variable} can name another folder")
    return found


def _real_data(name: str) -> Path:
    """Return a file or folder of the real data."""
    found = _outside("data", "SCULPT_TEST_DATA") / name
    if not found.exists():
        pytest.skip(f"needs {found}; SCULPT_TEST_DATA can name another folder")
    return found


def _common_folder(tmp_path_factory) -> Path:
    """Return the folder that all workers of pytest-xdist have."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def pytest_collection_finish() -> None:
    """Exempt all that was imported from garbage collection, which every run of a study begins with.

    Going through it takes half a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _imports_stay_frozen():
    """Let no run's end undo that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory):
    """Keep every test, and what it starts, out of the user's own cache folder."""
    folder = _common_folder(tmp_path_factory) / "cache"  # so CIFAR-10 is decoded once
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield


@pytest.fixture(scope="session", autouse=True)
def _tables_made_once(tmp_path_factory):
    """Copy the tables of each new study's file, and read Optuna's migrations once.

    They are ten modules, and every opening of a storage reads and runs them.
    """
    made = tmp_path_factory.mktemp("tables") / "made.db"
    make, read = sqlite_file._make_tables, ScriptDirectory.from_config
    known: dict[str | None, ScriptDirectory] = {}

    def copy_tables(file: Path) -> None:
        if made.exists():
            shutil.copyfile(made, file)
        else:
            make(file)
            shutil.copyfile(file, made)

    def read_once(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        return known.get(place) or known.setdefault(place, read(config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_file, "_make_tables", copy_tables)
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@pytest.fixture(scope="session")
def splits():
    """150 of the digits to train on, and 50 to validate on."""
    from sculpt.data import make_splits
    from sculpt.data.digits import Digits

    return make_splits(Digits().read(), train_images=200, validation_fraction=0.25)


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory):
    """A root from which the data set `mnist` reads the real MNIST."""
    source = _real_data("mnist")
    root = tmp_path_factory.mktemp("mnist")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in source.glob("*.gz"):
        with gzip.open(packed) as reader, open(raw / packed.stem, "wb") as writer:
            shutil.copyfileobj(reader, writer)
    return root


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory):
    """A root from which the data set `image_folder` reads CIFAR-10, as JPEG files."""
    source = _real_data("cifar10-jpeg.tar.xz")
    folder = _common_folder(tmp_path_factory)
    root = folder / "cifar10"
    with FileLock(folder / "cifar10.lock"):
        if not root.exists():
            with tarfile.open(source) as archive:
                archive.extractall(
                    folder / "cifar10.part", filter="fully_trusted"
                )  # a third faster
            (folder / "cifar10.part").rename(root)
    return root


@pytest.fixture(scope="session")
def reference_masks():
    """The folder of the masks that the paper's own code made, with the weights it made them of."""
    return _outside("reference", "SCULPT_TEST_REFERENCE")


@pytest.fixture
def sculpt_command(monkeypatch, capsys):
    """Run the command line in this process; return (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sculpt", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run
