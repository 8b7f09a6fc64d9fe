"""Figure of a pruning: sparsity and scores of every layer (Lee et al. 2020, Figure 1)."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from sculpt.config import describe_parameters
from sculpt.errors import InputError
from sculpt.presentation.figures.drawing import Figure, Row, chart, colour, cut_labels
from sculpt.presentation.figures.rendering import write_picture
from sculpt.units import count, share

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ROW = 24
"""Pixels of a layer's row."""


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
        write_picture(figure, Path(path))
    except (OSError, ValueError) as error:
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
    layers = list(document["layers"] if isinstance(document, Mapping) else document)
    if not layers:
        raise InputError("there must be layers to draw, but got none")
    rows = [
        {
            "layer": _short_name(layer["name"]),
            "x": 100 * (1 - layer["kept"] / prod(layer["shape"])),
            "kept": layer["kept"],
            "size": prod(layer["shape"]),
        }
        for layer in layers
    ]
    panels = [layer_bars("sparsity after pruning (%)").properties(width=420, height=alt.Step(ROW))]
    spreads = [_quantiles(x["name"], scores[x["name"]]) for x in layers if x["name"] in scores]
    if spreads:
        panels.append(_scores([row["layer"] for row in rows]))
    joined = alt.hconcat(*panels, spacing=24)
    if isinstance(document, Mapping) and "study" in document:
        named = f"{document['study']}: {describe_parameters(document['params']) or 'as it stands'}"
        size = f"{count(document['kept_parameters'])} parameters, "
        size += f"sparsity {share(document['sparsity'])}"
        joined = joined.properties(title=alt.TitleParams(named, subtitle=size))
    made: Figure = joined.to_dict(validate=False)
    del made["config"]
    known = [row for row in spreads if "median" in row]
    unknown = [row for row in spreads if "median" not in row]
    return made | {"datasets": {"layers": rows, "spreads": known, "without": unknown}}


def layer_bars(title: str) -> Any:
    """Draw a bar for each layer, and beside it how many of its weights are kept.

    Args:
        title: What the bars are. Their rows are named `layers` and have `layer`, `x` (percent),
            `kept` and `size`, in forward order.
    """
    # Room for the texts beside the bars.
    scale = alt.Scale(domain=[0, 160], nice=False)
    axis = alt.Axis(values=[0, 25, 50, 75, 100], grid=True, titleAnchor="start")
    drawn = chart("layers").encode(
        x=alt.X("x:Q", title=title, scale=scale, axis=axis), y=layer_axis()
    )
    kept = "(datum.kept ? format(datum.kept, ',') : 'none') + ' of ' + format(datum.size, ',')"
    fill, ink = (
        alt.ColorValue(colour("bad"), condition={"test": "datum.kept > 0", "value": colour(role)})
        for role in ("s1", "ink")
    )
    return alt.layer(
        drawn.mark_bar().encode(color=fill),
        drawn.mark_text(align="left", dx=5, fontSize=10).encode(
            text="label:N", x=alt.XDatum(100), color=ink
        ),
    ).transform_calculate(label=kept)


def layer_axis() -> alt.Y:
    """Return an axis of layers, the first on top."""
    axis = alt.Axis(labelExpr=cut_labels(), labelFontSize=10, ticks=False, domain=False)
    return alt.Y("layer:N", title=None, sort=None, axis=axis)


def _scores(names: Sequence[str]) -> Any:
    """Draw each layer's median and its quantile bands."""
    y = alt.Y("layer:N", title=None, scale=alt.Scale(domain=list(names)), axis=None)
    title = "score; median, 25–75 %, 5–95 % of those above 0"
    axis = alt.Axis(format="~g", titleAnchor="start", labelOverlap=True)
    known = chart("spreads").encode(
        y=y, x=alt.X("low:Q", title=title, scale=alt.Scale(type="log"), axis=axis)
    )
    bar = {"size": 9, "color": colour("s1")}
    return alt.layer(
        known.mark_bar(opacity=0.35, **bar).encode(x2="high:Q"),
        known.mark_bar(**bar).encode(x="lower:Q", x2="upper:Q"),
        known.mark_tick(thickness=2, size=15, color=colour("ink")).encode(x="median:Q"),
        chart("without")
        .mark_text(align="left", color=colour("bad"), fontSize=10, text="no score above 0")
        .encode(y=y, x=alt.XValue(4)),
        width=420,
        height=alt.Step(ROW),
    )


def _quantiles(name: str, scores: Any) -> Row:
    """Return the quantiles of a tensor's magnitudes that are not zero, if there are any."""
    values = scores.detach().cpu().double().numpy() if hasattr(scores, "detach") else scores
    values = np.abs(np.asarray(values).ravel())
    values = values[values > 0]
    row: Row = {"layer": _short_name(name)}
    if values.size:
        quantiles = np.quantile(values, QUANTILES).tolist()
        row |= zip(("low", "lower", "median", "upper", "high"), quantiles, strict=True)
    return row


def _short_name(name: str) -> str:
    return name.removesuffix(".weight")
