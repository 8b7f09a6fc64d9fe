"""The report's figures as PNG, drawn by matplotlib: Plotly needs a browser for pictures."""

from __future__ import annotations

import html
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sculpt.results.report.drawing import Figure

if TYPE_CHECKING:  # matplotlib takes half a second to import
    from matplotlib.axes import Axes

WIDTH = 7.5
"""Inches; at 130 dots per inch a figure is about 50 kB."""

PIXELS_PER_INCH = 96
"""Of the heights that figures have in the page."""

SYMBOLS = {
    "circle": "o",
    "diamond": "D",
    "square": "s",
    "triangle": "^",
    "cross": "P",
    "star": "*",
    "x": "X",
}
DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 2, 3)),
}


def write_picture(figure: Figure, path: Path) -> None:
    """Draw a figure of points, lines, bands and error bars, and write it as PNG.

    Args:
        figure: As the page has it: Plotly's JSON with colours by role.
        path: Of the file.
    """
    from matplotlib.figure import Figure as Canvas

    layout = figure["layout"]
    height = max(2.4, layout["height"] / PIXELS_PER_INCH)
    canvas = Canvas(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    axes = canvas.subplots()
    for name, setting in (("x", layout["xaxis"]), ("y", layout["yaxis"])):
        if setting.get("type") == "log":
            axes.set(**{f"{name}scale": "log"})
        else:
            getattr(axes, f"{name}axis").set_major_formatter(_tick)
        axes.set(**{f"{name}label": _text(setting["title"]["text"])})
    if places := layout["yaxis"].get("tickvals"):
        axes.set_yticks(places, [_text(name) for name in layout["yaxis"]["ticktext"]])
        axes.set_ylim(*layout["yaxis"]["range"])
    for trace in figure["data"]:
        _draw_trace(axes, trace)
    for shape in layout.get("shapes", []):
        _draw_shape(axes, shape)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color=_colour("@grid")[0])
    if axes.get_legend_handles_labels()[1] and layout.get("showlegend"):
        canvas.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    canvas.savefig(path, dpi=130)


def _tick(value: float, _: int | None = None) -> str:
    """Return a tick's label: 40 k, 1.2 M; what is below 1 as it is, and never in thousandths."""
    from matplotlib.ticker import EngFormatter

    label = f"{value:g}" if abs(value) < 1 else EngFormatter()(value)
    return label.replace("-", "−")


def _draw_trace(axes: Axes, trace: dict[str, Any]) -> None:
    x, y = _numbers(trace["x"]), _numbers(trace["y"])
    label = _text(trace.get("name", "")) if trace.get("showlegend", True) else None
    if trace.get("fill"):
        colour, alpha = _colour(trace["fillcolor"])
        axes.fill(x, y, color=colour, alpha=alpha, linewidth=0)
        return
    for name in ("x", "y"):
        if bars := trace.get(f"error_{name}"):
            lengths = [_numbers(bars.get("arrayminus", bars["array"])), _numbers(bars["array"])]
            colour, alpha = _colour(bars["color"])
            style: dict[str, Any] = {f"{name}err": lengths, "ecolor": colour, "alpha": alpha}
            axes.errorbar(x, y, fmt="none", capsize=2, **style)
    if "lines" in trace["mode"]:
        line = trace["line"]
        colour, alpha = _colour(line["color"])
        axes.plot(
            x,
            y,
            color=colour,
            alpha=alpha,
            linestyle=DASHES[line.get("dash", "solid")],
            drawstyle="steps-post" if line.get("shape") == "hv" else "default",
            label=label,
        )
        label = None
    if "markers" in trace["mode"]:
        marker = trace["marker"]
        colour, alpha = _colour(marker["color"])
        symbol, *variants = marker["symbol"].split("-")
        look: dict[str, Any] = {"marker": SYMBOLS[symbol], "color": colour}
        if "thin" in variants:
            look["marker"] = "x"  # lines alone
        elif "open" in variants:
            look = {"marker": SYMBOLS[symbol], "facecolors": "none", "edgecolors": colour}
        opacity, size = marker.get("opacity", 1.0), marker["size"]
        axes.scatter(x, y, s=(0.8 * size) ** 2, alpha=alpha * opacity, label=label, **look)


def _draw_shape(axes: Axes, shape: dict[str, Any]) -> None:
    """Draw a line or a band across the whole of one axis."""
    label = _text(shape["name"]) if shape.get("showlegend") else None
    if shape["type"] == "rect":
        colour, alpha = _colour(shape["fillcolor"])
        axes.axhspan(shape["y0"], shape["y1"], color=colour, alpha=alpha, linewidth=0)
        return
    colour, alpha = _colour(shape["line"]["color"])
    dash = DASHES[shape["line"].get("dash", "solid")]
    along = axes.axhline if shape.get("xref") == "paper" else axes.axvline
    at = shape["y0"] if shape.get("xref") == "paper" else shape["x0"]
    along(at, color=colour, alpha=alpha, linestyle=dash, label=label)


def _colour(role: str) -> tuple[str, float]:
    """Return the light colour of a role such as `@base/0.16`, and its opacity."""
    name, _, alpha = role.removeprefix("@").partition("/")
    return _light_colours()[name], float(alpha or 1)


@cache
def _light_colours() -> dict[str, str]:
    """Return the colours that the page's style sheet begins with, by role."""
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", style.split("@media")[0]))


def _numbers(values: Any) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


def _text(escaped: str) -> str:
    """Return a text of a figure as it is meant to be read."""
    plain = html.unescape(re.sub(r"<br>", "\n", escaped))
    return plain.replace("$", r"\$")  # matplotlib would read formulas between two of them
