"""Whole studies against what the code made before it was redesigned: same seeds, same bits.

    python tests/test_golden_studies.py CIFAR10_FOLDER     # writes golden_studies.json anew

What a redesign must not change. On other processors, or with another PyTorch, sums are rounded
otherwise: there the configurations and sizes are compared, and whether the errors are near.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import sculpt

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_name("golden_studies.json")

STUDIES: dict[str, dict[str, Any]] = {
    "digits_shapes.yaml": {"search.trials": 5, "search.replicates": 1},
    "cifar10_smoke.yaml": {
        "data": {"name": "image_folder", "train_images": 300, "validation_fraction": 0.2},
        "training.precision": "float32",
        "training.epochs": 1,
        "space.parameters": {"widening": [2], "blocks": [2]},
        "search.trials": 2,
    },
}


def arithmetic() -> dict[str, Any]:
    """Return what the last bits of a sum depend on: PyTorch's kernels for a make of processor."""
    path, named = Path("/proc/cpuinfo"), ("vendor_id", "cpu family")
    lines = path.read_text().splitlines() if path.exists() else []
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": sorted({" ".join(line.split()) for line in lines if line.startswith(named)}),
    }


def found_by(name: str, root: str, folder: Path) -> list[dict[str, Any]]:
    """Run a study that ships, cut short, and return its trials, the best first."""
    overrides = STUDIES[name] | {"storage": str(folder / "study.db")}
    if name != "digits_shapes.yaml":
        overrides["data"] = overrides["data"] | {"root": root}
    results = sculpt.run(ROOT / "studies" / name, overrides=overrides, device="cpu")
    rows = []
    for row in sculpt.rank(results)["ranking"]:
        record = results.record(row["trial"])
        masks = hashlib.sha256()
        for seed in record["seeds"]:
            results.copy_network(row["trial"], folder / "network.safetensors", seed)
            for key, mask in sorted(sculpt.load(folder / "network.safetensors").masks.items()):
                masks.update(key.encode() + mask.numpy().tobytes())
        rows.append(
            {
                "trial": row["trial"],
                "params": row["params"],
                "kept": record["kept_parameters"],
                "kept_by_layer": [layer["kept"] for layer in record["layers"]],
                "masks": masks.hexdigest(),
                "val_errors": record["val_errors"],
                "verdict": row["verdict"],
            }
        )
    return rows


def check(name: str, root: str, folder: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = found_by(name, root, folder)
    finally:
        torch.set_num_threads(threads)
    golden = json.loads(GOLDEN.read_text())
    expected = golden[name]
    if golden["arithmetic"] == arithmetic():
        assert found == expected
        return
    for rows in (found, expected):
        rows.sort(key=lambda row: str(row["trial"]))
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours["trial"], ours["params"], ours["kept"]) == (
            *(theirs[key] for key in ("trial", "params", "kept")),
        )
        assert ours["kept_by_layer"] == pytest.approx(theirs["kept_by_layer"], rel=0.05, abs=5)
        assert ours["val_errors"] == pytest.approx(theirs["val_errors"], abs=0.1)


@pytest.mark.slow
def test_digits(tmp_path):
    check("digits_shapes.yaml", "", tmp_path)


@pytest.mark.slow
def test_cifar10(cifar10_folder, tmp_path):
    check("cifar10_smoke.yaml", str(cifar10_folder), tmp_path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    written: dict[str, Any] = {"arithmetic": arithmetic()}
    for study in STUDIES:
        with tempfile.TemporaryDirectory() as made:
            written[study] = found_by(study, sys.argv[1], Path(made))
    GOLDEN.write_text(json.dumps(written, indent=1) + "\n")
