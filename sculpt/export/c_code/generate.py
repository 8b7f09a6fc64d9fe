"""A program as one file of C: its tables, and the code that goes through them."""

import json
import re
from importlib.resources import files
from math import prod
from typing import TypedDict

import numpy as np

from sculpt.export.c_code.layout import GRIDS, plan_for
from sculpt.export.c_code.nodes import nodes_of
from sculpt.export.c_code.tables import Tables, plans_text
from sculpt.export.program import Program

FORMAT = "sculpt-c-1"


class Info(TypedDict):
    """What `sculpt_info()` says of a network."""

    format: str
    name: str
    input_shape: list[int]
    """Of one image: channels, height, width; or the length of a row."""
    classes: int
    parameters: int
    """All numbers of its layers, zeros included."""
    nonzero_weights: int
    macs: int
    """Multiply-accumulates for one image, of weights that are not zero."""


LONGEST_NAME = 200
RUNTIME = "runtime.c"
PLACE_OF_TITLE = "SCULPT_TITLE"
PLACE_OF_TABLES = "/*SCULPT_TABLES*/"


def c_code(program: Program, name: str = "network") -> str:
    """Return the C source of a program.

    Weights that are zero in float32 are left out; the others are there to the last bit.

    Args:
        program: With zeros for pruned weights.
        name: Of the network, for its title and `sculpt_info()`.

    Raises:
        ExportError: the network is too large for the code's 32-bit offsets, or a kernel is.
        NumericsError: a value is not finite in float32.
    """
    nodes = nodes_of(program)
    plans = [plan_for(nodes, grid) for grid in GRIDS]
    tables = Tables()
    for node in nodes:
        tables.add(node)
    title = re.sub(r"[^\w .,+()-]", "_", name, flags=re.ASCII)[:LONGEST_NAME]
    text = "\n".join(
        [
            f"#define IMAGE {prod(program.input_shape)} /* numbers of an image */",
            f"#define CLASSES {program.classes}",
            f"#define INFO {_literal(json.dumps(info(program, title)))}",
            tables.text(),
            plans_text(plans, nodes, tables.items),
        ]
    )
    runtime = files(__package__).joinpath(RUNTIME).read_text(encoding="utf-8")
    return runtime.replace(PLACE_OF_TITLE, title, 1).replace(PLACE_OF_TABLES, text, 1)


def info(program: Program, name: str) -> Info:
    """Return what `sculpt_info()` says."""
    nnz = sum(np.count_nonzero(layer.weight.astype(np.float32)) for layer in program.layers())
    return {
        "format": FORMAT,
        "name": name,
        "input_shape": list(program.input_shape),
        "classes": program.classes,
        "parameters": sum(values.size for _, values in program.values()),
        "nonzero_weights": int(nnz),
        "macs": program.macs(dense=False),
    }


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
