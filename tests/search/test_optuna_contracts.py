"""Optuna's own contract suites on our storage and our samplers, and the names we take from it."""

import importlib
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.testing.pytest_storages import StorageTestCase
from storage_worker import SEARCHED

from sculpt.config import Range, Space
from sculpt.search.sampling.samplers import make_sampler
from sculpt.storage.optuna_names import PRIVATE, PRIVATE_ATTRIBUTES, experimental_accepted
from sculpt.storage.study_storage import open_storage


class TestStudyStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, storage_url):
        with closing(open_storage(storage_url, create=True)) as storage:
            yield storage


@pytest.mark.parametrize("name", ["random", "tpe", "nsga2"], scope="class")
class TestUnrepeatedSampler(BasicSamplerTestCase):
    """With parameters that are none of the space's; test_samplers has those that are."""

    @pytest.fixture
    def sampler(self, name):
        endless = Space(parameters={"a": Range(low=0.0, high=1.0)})
        settings = SEARCHED.search.model_copy(update={"sampler": name})
        searched = SEARCHED.model_copy(update={"space": endless, "search": settings})
        with experimental_accepted():
            return lambda: make_sampler(searched)

    @pytest.fixture(autouse=True)
    def _experimental(self):
        with experimental_accepted():
            yield


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_name_is_where_it_was(name):
    """Fails by name when Optuna moves one; then sculpt/storage/optuna_names.py changes."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for part in parts[1:]:
        assert hasattr(found, part), f"Optuna {optuna.__version__} has no {name} any more"
        found = getattr(found, part)
    assert callable(found)


def test_private_attributes_are_where_they_were():
    study = optuna.create_study()
    of_study, of_trial, storage = PRIVATE_ATTRIBUTES
    assert hasattr(study, of_study)
    assert hasattr(study.ask(), of_trial)
    assert hasattr(study, storage)


def test_optuna_is_no_newer_than_what_was_tried():
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
    (rule,) = [text for text in dependencies if text.startswith("optuna>")]
    assert "<" in rule, rule
