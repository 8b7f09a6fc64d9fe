"""A study small enough to run inside a test: seconds, not minutes."""

import copy
from pathlib import Path
from typing import Any

import yaml

from sculpt.documents import assign

TINY: dict[str, Any] = {
    "study": "tiny",
    "data": {"name": "digits", "train_images": 200, "validation_fraction": 0.25},
    "model": {"name": "resnet", "widening": 1, "blocks": 1, "stem_width": 4},
    "space": {"parameters": {"widening": [2, 3], "blocks": [1, 2]}},
    "training": {
        "epochs": 1,
        "batch_size": 50,
        "schedule": "one_cycle",
        "precision": "float32",
    },
    "search": {"trials": 4, "replicates": 2, "grace_seconds": 2},
}


def write_study(folder: Path, **changes: Any) -> Path:
    """Write the tiny study into a folder, kept in that folder; changes by dotted key.

    A key's dots are written as two underscores: `search__trials=3`.
    """
    document = copy.deepcopy(TINY)
    document["storage"] = str(folder / "tiny.db")
    for key, value in changes.items():
        assign(document, key.replace("__", "."), value)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
