"""The figure of a pruning: what is drawn is what was given, and a file comes out."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sculpt.errors import InputError
from sculpt.presentation.figures.pruning import QUANTILES, draw_pruning, plot_pruning

LAYERS = [
    {"name": "stem.weight", "shape": [4, 1, 3, 3], "kept": 9},
    {"name": "middle.weight", "shape": [10, 4], "kept": 0},
    {"name": "classifier.weight", "shape": [2, 10], "kept": 20},
]
DOCUMENT = {
    "study": "tiny",
    "params": {"widening": 2},
    "kept_parameters": 29,
    "sparsity": 0.698,
    "layers": LAYERS,
}


def scores() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {
        layer["name"]: torch.randn(layer["shape"], generator=generator).exp() for layer in LAYERS
    }
    drawn["stem.weight"].view(-1)[:7] = 0
    drawn["middle.weight"].zero_()
    drawn["stem.bias"] = torch.full((4,), 1e9)
    return drawn


def test_sparsities(tmp_path):
    plot_pruning(DOCUMENT, scores(), tmp_path / "figure.svg")
    drawn = (tmp_path / "figure.svg").read_text()
    rows = draw_pruning(DOCUMENT, scores())["datasets"]["layers"]
    assert [row["x"] for row in rows] == pytest.approx([75, 100, 0])
    assert [row["layer"] for row in rows] == ["stem", "middle", "classifier"]
    texts = ("9 of 36", "none of 40", "20 of 20", "tiny: widening 2", "29 parameters", "69.80%")
    for text in texts:
        assert f">{text}" in drawn or f"{text}<" in drawn, text


@pytest.mark.parametrize("sign", [1, -1])
def test_the_scores_of_each_layer_or_their_magnitudes(sign):
    given = scores()
    figure = draw_pruning(DOCUMENT, {name: sign * s for name, s in given.items()})
    assert figure["datasets"]["without"] == [{"layer": "middle"}], "no score above 0"
    assert len(figure["datasets"]["spreads"]) == 2, "a bias is no layer"
    for row in figure["datasets"]["spreads"]:
        values = given[f"{row['layer']}.weight"].double().numpy().ravel()
        expected = np.quantile(values[values > 0], QUANTILES)
        found = [row[key] for key in ("low", "lower", "median", "upper", "high")]
        assert found == pytest.approx(expected.tolist())


def test_one_panel_without_scores():
    assert "title" not in draw_pruning(LAYERS, {})
    for without in ({}, {"stem.bias": torch.ones(4)}):
        assert len(draw_pruning(LAYERS, without)["hconcat"]) == 1
    with pytest.raises(InputError, match="there must be layers"):
        draw_pruning([], {})


@pytest.mark.parametrize("count", [1, 55])
def test_a_file_with_nothing_cut_off(count, tmp_path):
    layers = [
        {"name": f"stages.{index}.second.conv.weight", "shape": [1234, 5678], "kept": 1_234_567}
        for index in range(count)
    ]
    path = tmp_path / "figure.png"
    given = {layer["name"]: torch.rand(50) for layer in layers}
    plot_pruning({**DOCUMENT, "layers": layers}, given, path)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    assert path.stat().st_size > 10_000
    assert pixels.shape[0] > 36 * count
    assert (pixels < 128).mean() > 0.01, "something dark is on it"
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge > 250).all(), "nothing reaches the edge"


def test_a_page_for_print(tmp_path):
    plot_pruning(LAYERS, scores(), tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["figure.nonsense", "no/such/folder/figure.png"])
def test_a_file_that_cannot_be_written(name, tmp_path):
    with pytest.raises(InputError, match="must go to a file that can be written"):
        plot_pruning(LAYERS, scores(), tmp_path / name)
