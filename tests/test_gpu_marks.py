"""Tests that need a GPU see one, and alone they need little else; all others see none."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from gpu_marks import pytest_configure, pytest_ignore_collect

HERE = Path(__file__).parent


def asked(marks):
    return SimpleNamespace(option=SimpleNamespace(markexpr=marks))


@pytest.mark.parametrize(
    ("marks", "hidden"),
    [
        ("not slow and not gpu", True),
        ("slow", True),
        ("", True),
        ("gpu", False),
        ("gpu and not slow", False),
    ],
)
def test_gpus_are_hidden_from_all_other_tests(monkeypatch, marks, hidden):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    pytest_configure(asked(marks))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("" if hidden else "0")


def test_alone_they_import_no_other_files():
    """Those of the browser need what a lent machine may not have."""

    def collected(place, marks):
        return not pytest_ignore_collect(HERE / place, asked(marks))

    assert collected("browser", "not slow and not gpu")
    assert not collected("browser", "gpu")
    assert collected("training", "gpu")
    assert collected("training/test_trainer.py", "gpu")
    assert not collected("training/test_schedules.py", "gpu")
