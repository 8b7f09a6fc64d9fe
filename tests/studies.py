"""A study small enough to run inside a test: seconds, not minutes; and what it must come to."""

import copy
from pathlib import Path
from typing import Any

import yaml

import sculpt
from sculpt.documents import assign
from sculpt.results.records import Results

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
        "compact": False,  # takes longer than what it saves; golden studies are compacted
    },
    "search": {"trials": 4, "replicates": 1, "grace_seconds": 10},
    "diagnostics": {"jacobian_images": 0},  # a quarter of the time of such a study
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


def check_complete(reference: str | Path, total: int, storage: str | None = None) -> Results:
    """Check that a study reached its total, and ran no configuration twice."""
    results = sculpt.open_results(reference, storage)
    tally = results.tally()
    assert (tally["total"], tally["complete"]) == (total, total)
    assert tally["failed"] == tally["running"] == tally["queued"] == 0
    done = results.complete[results.complete["trial"] != "base"].filter(like="params.")
    assert len(done) == len(done.drop_duplicates()) == total - 1
    return results
