"""What `-m gpu` changes about a session of tests; hooks of pytest."""

import os
from pathlib import Path

import pytest

GPU_MARK = "pytest.mark.gpu"


def _asks_for_gpu(config: pytest.Config) -> bool:
    """Tell whether `-m` asks for tests that need a GPU."""
    return "gpu" in config.option.markexpr.replace("not gpu", "")


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all other tests, of which many want the CPU, or equal bits."""
    if not _asks_for_gpu(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m gpu`, import only files with such a test: a machine that is lent for its GPU may
    lack what others import (a browser, say)."""
    files = collection_path.rglob("*.py") if collection_path.is_dir() else [collection_path]
    if _asks_for_gpu(config) and not any(GPU_MARK in file.read_text() for file in files):
        return True
    return None
