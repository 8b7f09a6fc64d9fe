"""Programs compiled for a test, and how far what they compute is from float64."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from programs import Builder

from sculpt.export.c_code import library
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import CLibrary, compile_library
from sculpt.export.module import evaluate_program
from sculpt.export.program import Program

BATCHES = (1, 3, 35)
"""An image, fewer than there are lanes, and more."""
LANES = {
    "native": (),
    "16": ("-DSCULPT_LANES=16", "-Wno-psabi"),
    "8": ("-DSCULPT_LANES=8", "-Wno-psabi"),
    "4": ("-DSCULPT_LANES=4",),
    "plain": ("-DSCULPT_PLAIN",),
}


def built(program: Program, folder: Path, *flags: str) -> CLibrary:
    # A library of a name that was loaded before would not be loaded anew.
    number = len(list(folder.iterdir()))
    source, compiled = folder / f"network{number}.c", folder / f"network{number}.so"
    source.write_text(c_code(program), encoding="utf-8")
    with patch.object(library, "FLAGS", (*library.FLAGS, *flags)):
        return CLibrary(compile_library(source, compiled))


def images_for(program: Program, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *program.input_shape, generator=generator)


def error_of(program: Program, library: CLibrary, batch: int) -> float:
    """Return the largest difference from float64, relative to the largest logit."""
    images = images_for(program, batch)
    expected = evaluate_program(program, images.double()).numpy()
    found = library.run(images.numpy())
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-3))


def small(seed: int = 0) -> Program:
    """Return a residual network of a few weights, whose images can be cut into tiles."""
    builder = Builder((3, 8, 8), seed)
    one: dict[str, Any] = {"window": (3, 3), "padding": (1, 1)}
    builder.conv(5, density=1.0, **one)
    stream = builder.activation("relu")
    builder.conv(5, density=0.4, **one)
    builder.plus(stream)
    builder.conv(5, density=0.4, stride=(2, 2), **one)
    builder.pool("average", (4, 4), (4, 4), (0, 0), ceil_mode=False)
    builder.flatten()
    builder.linear(4, 1.0)
    return builder.program()
