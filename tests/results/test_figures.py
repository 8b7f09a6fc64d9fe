"""The figure of a pruning: what is drawn is what was given, and a file comes out."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sculpt.errors import InputError
from sculpt.results.figures import QUANTILES, draw_pruning, plot_pruning

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


def texts(axis: Any) -> list[str]:
    return [text.get_text() for text in axis.texts]


def test_sparsities():
    left, _ = draw_pruning(DOCUMENT, scores()).axes

    assert [bar.get_width() for bar in left.patches] == pytest.approx([0.75, 1, 0])
    assert [bar.get_y() + bar.get_height() / 2 for bar in left.patches] == pytest.approx([0, 1, 2])
    assert texts(left) == ["9 of 36", "none of 40", "20 of 20"]
    colours = [bar.get_facecolor() for bar in left.patches]
    assert colours[0] == colours[2] != colours[1], "a layer without weights stands out"
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["stem", "middle", "classifier"]
    bottom, top = left.get_ylim()
    assert bottom > 2 > 0 > top, "the first layer is on top, and all are inside"


@pytest.mark.parametrize("sign", [1, -1])
def test_the_scores_of_each_layer_or_their_magnitudes(sign: int):
    given = scores()
    _, right = draw_pruning(DOCUMENT, {name: sign * s for name, s in given.items()}).axes

    assert right.get_xscale() == "log"
    assert texts(right) == ["no score above 0"]
    lines = {}
    for line in right.lines:
        (row,) = set(line.get_ydata())
        lines.setdefault(row, []).append(list(line.get_xdata()))
    assert set(lines) == {0, 2}
    for row in lines:
        values = given[LAYERS[row]["name"]].double().numpy().ravel()
        low, lower, median, upper, high = np.quantile(values[values > 0], QUANTILES)
        expected = [[low, high], [lower, upper], [median]]
        assert lines[row] == [pytest.approx(line) for line in expected]
    assert right.get_xlim()[1] < 1e6, "a bias is no layer"


def test_the_title_and_one_panel_without_scores():
    title = draw_pruning(DOCUMENT, {}).get_suptitle()
    assert all(part in title for part in ("tiny", "widening 2", "29 parameters", "69.80%"))
    assert draw_pruning(LAYERS, {}).get_suptitle() == ""
    for without in ({}, {"stem.bias": torch.ones(4)}):
        assert len(draw_pruning(LAYERS, without).axes) == 1
    with pytest.raises(InputError, match="there must be layers"):
        draw_pruning([], {})


@pytest.mark.parametrize("count", [1, 7, 20, 55])
def test_a_file_with_nothing_cut_off(count: int, tmp_path: Path):
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

    figure = draw_pruning({**DOCUMENT, "layers": layers}, given)
    figure.draw_without_rendering()
    left, right = figure.axes
    widest = max(text.get_window_extent().x1 for text in left.texts)
    assert widest < right.get_window_extent().x0, "no text runs into the next panel"
    labels = [label.get_window_extent() for label in left.get_yticklabels()]
    assert all(upper.y0 > lower.y1 - 3 for upper, lower in itertools.pairwise(labels))


def test_nothing_global_is_touched(tmp_path: Path):
    # In a process of its own: other libraries that tests use import pyplot.
    code = (
        "import sys; from sculpt.results.figures import plot_pruning; "
        f"plot_pruning({LAYERS!r}, {{}}, sys.argv[1]); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    file = tmp_path / "figure.svg"
    subprocess.run([sys.executable, "-c", code, file], check=True)
    assert file.read_text().startswith("<?xml")


@pytest.mark.parametrize("name", ["figure.nonsense", "no/such/folder/figure.png"])
def test_a_file_that_cannot_be_written(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="must go to a file that can be written"):
        plot_pruning(LAYERS, scores(), tmp_path / name)
