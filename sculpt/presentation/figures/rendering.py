"""Charts drawn without a browser, and what draws them in one."""

import contextlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import vl_convert

from sculpt.files import cache_folder, replacing
from sculpt.presentation.figures.drawing import COLOURS, CONFIG, WIDTH, Figure

ENDINGS = (".png", ".pdf", ".svg")


def write_picture(figure: Figure, path: Path) -> None:
    """Draw a figure on white and write it; the ending says the format (.png, .pdf, .svg).

    Raises:
        ValueError: the ending is another one, or the figure is no Vega-Lite specification.
        OSError: the file cannot be written.
    """
    sized = figure | ({"width": WIDTH} if figure.get("width") == "container" else {})
    # Halves of letters, which no encoding has, are replaced.
    spec = json.dumps(sized, ensure_ascii=False).encode(errors="replace").decode()
    config = CONFIG | theme("light") | {"background": "white", "padding": 12}
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"the name must end in {', '.join(ENDINGS)}")
    if ending == ".png":
        drawn = vl_convert.vegalite_to_png(spec, config=config, scale=1.5)
    elif ending == ".pdf":
        drawn = vl_convert.vegalite_to_pdf(spec, config=config)
    else:
        drawn = vl_convert.vegalite_to_svg(spec, config=config).encode()
    path.write_bytes(drawn)


def theme(scheme: str) -> dict[str, Any]:
    """Return a scheme's colours as the parameters of a chart's `config`."""
    return {"params": [{"name": role, "value": hue} for role, hue in COLOURS[scheme].items()]}


def browser_library() -> str:
    """Return the scripts that draw charts in a page: Vega-Embed and what it needs.

    Bundling them takes seconds, so they are kept in the user's cache folder.
    """
    path = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    with contextlib.suppress(OSError), replacing(path) as part:
        part.write_text(script, encoding="utf-8")
    return script
