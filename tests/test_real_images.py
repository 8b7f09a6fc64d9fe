"""A study on real images that ships with sculpt, cut short: the same files, fewer images.

That of CIFAR-10 is among the golden studies.
"""

import json
from pathlib import Path
from typing import Any

import pytest

import sculpt
from sculpt.results.ranking import rank

ROOT = Path(__file__).resolve().parents[1]


def ranking(study: str, overrides: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    """Run a study that ships, and return its ranking as the command line prints it."""
    overrides |= {"storage": str(tmp_path / "study.db"), "search.trials": 3}
    results = sculpt.run(ROOT / "studies" / study, overrides=overrides)
    return json.loads(json.dumps(rank(results)))["ranking"]


@pytest.mark.slow
def test_mnist(mnist_root, tmp_path):
    overrides = {
        "data.root": str(mnist_root),
        "data.train_images": 900,
        "space.parameters": {"widening": [2], "blocks": [1, 2]},
        "training.batch_size": 30,
        "search.replicates": 1,
    }
    rows = ranking("mnist.yaml", overrides, tmp_path)
    assert [row["kept_parameters"] for row in rows] == [4874] * 3
    assert min(row["val_error"]["mean"] for row in rows) < 0.7, "chance is 0.9"
