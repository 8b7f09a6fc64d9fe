"""Figures: what pruning left of every layer, and how the scores lay (Lee et al. 2020, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sculpt.config import describe_parameters
from sculpt.errors import InputError

if TYPE_CHECKING:  # matplotlib takes half a second to import, and most commands draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BLUE, RED, DARK = "#4c78a8", "#d62728", "#1f2d3d"


def plot_pruning(
    document: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    path: str | Path,
) -> None:
    """Write the figure of `draw_pruning` to a file; its ending says the format (.png, .pdf, .svg).

    Raises:
        InputError: there are no layers, or the file cannot be written.
    """
    figure = draw_pruning(document, scores)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that names no format
        raise InputError(
            f"the figure must go to a file that can be written, such as pruning.png, but got "
            f"{path} ({error})"
        ) from error


def draw_pruning(
    document: Mapping[str, Any] | Sequence[Mapping[str, Any]], scores: Mapping[str, Any]
) -> Figure:
    """Draw each layer's sparsity and, beside it, the distribution of its scores.

    Layers go down the page in the order of the forward pass: names stay readable, however many.

    Args:
        document: What `sculpt diagnose --json` prints or a trial's record, or only its `layers`:
            rows with name, shape and kept.
        scores: Tensors keyed by parameter name; the magnitudes of those that are not zero are
            shown. Names that are no layer's weight (biases) are left out, and without any scores so
            is their panel.

    Raises:
        InputError: there are no layers.
    """
    from matplotlib.figure import Figure

    layers = list(document["layers"] if isinstance(document, Mapping) else document)
    if not layers:
        raise InputError("there must be layers to draw, but got none")
    drawn = [np.abs(_to_numpy(scores[x["name"]])) if x["name"] in scores else None for x in layers]
    panels = 1 if all(values is None for values in drawn) else 2

    # The object itself and no pyplot: nothing global is touched, and no display is needed.
    figure = Figure(figsize=(1.5 + 4.5 * panels, 1.7 + 0.24 * len(layers)), layout="constrained")
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    _draw_sparsity(axes[0], layers)
    if panels == 2:
        _draw_scores(axes[1], drawn)
    axes[0].set_yticks(
        range(len(layers)), [layer["name"].removesuffix(".weight") for layer in layers], fontsize=8
    )
    axes[0].set_ylim(len(layers) - 0.4, -0.6)  # the first layer on top
    for axis in axes:
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
        axis.grid(axis="x", color="0.9")
    if isinstance(document, Mapping) and "study" in document:
        named = f"{document['study']}: {describe_parameters(document['params']) or 'as it stands'}"
        size = f"{document['kept_parameters']:,} parameters, sparsity {document['sparsity']:.2%}"
        figure.suptitle(f"{named}\n{size}", fontsize=10)
    return figure


def _draw_sparsity(axis: Axes, layers: list[Mapping[str, Any]]) -> None:
    """Draw a bar for each layer, and beside it what is kept."""
    sizes = [int(np.prod(layer["shape"])) for layer in layers]
    sparsities = [1 - layer["kept"] / size for layer, size in zip(layers, sizes, strict=True)]
    colours = [BLUE if layer["kept"] else RED for layer in layers]
    axis.barh(range(len(layers)), sparsities, color=colours, height=0.72)
    for row, (layer, size) in enumerate(zip(layers, sizes, strict=True)):
        text = f"{layer['kept']:,} of {size:,}" if layer["kept"] else f"none of {size:,}"
        colour = "0.35" if layer["kept"] else RED
        axis.text(1.03, row, text, va="center", fontsize=7, color=colour)
    axis.set_xlim(0, 1.6)  # room for those texts
    axis.spines["bottom"].set_bounds(0, 1)
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axis.set_xlabel("sparsity after pruning", fontsize=9, loc="left")
    axis.set_title("weights pruned, and kept", fontsize=10, loc="left")


def _draw_scores(axis: Axes, scores: list[np.ndarray | None]) -> None:
    """Draw each layer's median and its quantile bands."""
    axis.set_xscale("log")
    for row, magnitudes in enumerate(scores):
        if magnitudes is None:
            continue
        values = magnitudes[magnitudes > 0]
        if not values.size:
            axis.text(
                0.02,
                row,
                "no score above 0",
                transform=axis.get_yaxis_transform(),
                va="center",
                fontsize=7,
                color=RED,
            )
            continue
        low, lower, median, upper, high = np.quantile(values, QUANTILES)
        axis.plot(
            [low, high], [row, row], color=BLUE, alpha=0.35, linewidth=7, solid_capstyle="butt"
        )
        axis.plot([lower, upper], [row, row], color=BLUE, linewidth=7, solid_capstyle="butt")
        axis.plot([median], [row], marker="|", color=DARK, markersize=10, markeredgewidth=2)
    axis.set_xlabel("score; median, 25–75 %, 5–95 % of those above 0", fontsize=9, loc="left")
    axis.set_title("scores", fontsize=10, loc="left")


def _to_numpy(tensor: Any) -> np.ndarray:
    """Return a tensor of any device as a flat array."""
    return np.asarray(
        tensor.detach().cpu().double() if hasattr(tensor, "detach") else tensor
    ).ravel()
