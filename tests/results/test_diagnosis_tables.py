"""What `sculpt diagnose` shows: every figure of the document, in the right place."""

from typing import Any

import pytest
from rich.console import Console

from sculpt.results.tables.trial import diagnosis_tables


def spectrum(mean: float, condition: float | None) -> dict[str, Any]:
    return {"mean": mean, "std": 0.5, "min": 0.25, "max": 4.125, "condition": condition}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "study": "tiny",
        "params": {"widening": 2, "blocks": 1},
        "budget": 4874,
        "counting": "paper",
        "kept_parameters": 4870,
        "sparsity": 0.748,
        "layers": [
            {
                "name": "stem.conv.weight",
                "shape": [16, 1, 3, 3],
                "kept": 1234,
                "density": 0.25,
                "kept_macs": 1_500_000,
                "effective_channels": 14,
                "orthogonality_before": 4.93,
                "orthogonality_after": 2.0135,
                "orthogonality_bound": 2.0,
                "repair_steps": 300,
                "repair_seconds": 0.5,
            }
        ],
        "jacobian": {
            "initial": spectrum(1.5, 16.5),
            "pruned": spectrum(0.75, None),
            "repaired": spectrum(0.875, 29_200.0),
        },
        "effective": {"nodes": 1024, "log10_paths": 47.528, "parameters": 3210},
        "orthogonality_score": {"initial": 0.125, "pruned": 4.5, "repaired": 2.25},
        **changes,
    }


def show(document: dict[str, Any]) -> tuple[str, list[list[str]]]:
    """Return the printed text, and its rows as cells."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(diagnosis_tables(document))
    text = capture.get()
    return text, [
        [cell.strip().replace(" ", "_") for cell in line.strip("│").split("│")]
        for line in text.splitlines()
        if line.startswith("│")
    ]


def test_every_figure():
    text, rows = show(document())
    assert "tiny: widening 2, blocks 1, 4,870 parameters kept of a budget of 4,874" in text
    assert "(counting rule paper), sparsity 74.80%" in text
    layer, *steps = rows
    assert " ".join(layer) == (
        "stem.conv.weight 16×1×3×3 1,234 25.00% 1.50_M 14_of_16 4.930 2.014 2.000 300"
    )
    assert steps == [
        ["initial", "0.125", "1.5", "0.5", "0.25", "4.12", "16.5"],
        ["pruned", "4.500", "0.75", "0.5", "0.25", "4.12", "infinite"],
        ["repaired", "2.250", "0.875", "0.5", "0.25", "4.12", "2.92e+04"],
    ]
    assert "effective: 1,024 nodes, 3,210 weights, 10^47.53 paths" in text


def test_without_repair_nothing_is_repaired():
    without = document()
    without["jacobian"]["repaired"] = without["orthogonality_score"]["repaired"] = None
    _, rows = show(without)
    assert rows[0][5:] == ["14_of_16", "4.930", "2.000"]
    assert [row[0] for row in rows[1:]] == ["initial", "pruned"]


def test_a_disconnected_network_is_called_one():
    text, _ = show(document(effective={"nodes": 0, "log10_paths": None, "parameters": 0}))
    assert "effective: 0 nodes, 0 weights, no path: disconnected" in text


@pytest.mark.parametrize("sampled", [{}, {"widening": 2}], ids=str)
def test_any_parameters(sampled):
    text, _ = show(document(params=sampled))
    assert text.startswith("tiny: widening 2, 4,870" if sampled else "tiny: as it stands, 4,870")
