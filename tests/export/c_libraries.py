"""Programs compiled for a test, and how far what they compute is from float64."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from sculpt.export.c_code import library
from sculpt.export.c_code.generate import c_code
from sculpt.export.c_code.library import CLibrary, compile_library
from sculpt.export.evaluation import evaluate_program
from sculpt.export.program import (
    Activation,
    Add,
    Conv,
    Flatten,
    Input,
    Linear,
    Pool,
    Program,
)

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
    random = np.random.default_rng(seed)
    weight = random.normal(size=(5, 5, 3, 3)) * (random.random((5, 5, 3, 3)) < 0.4)
    stem, bias = random.normal(size=(5, 3, 3, 3)), random.normal(size=5)
    image = (5, 8, 8)
    return Program(
        (
            Input((3, 8, 8)),
            Conv(image, "stem", 0, stem, bias, (1, 1), (1, 1)),
            Activation(image, "relu", 1, "relu"),
            Conv(image, "conv", 2, weight, bias, (1, 1), (1, 1)),
            Add(image, "add", 3, 2),
            Conv((5, 4, 4), "down", 4, weight, bias, (2, 2), (1, 1)),
            Pool((5, 1, 1), "pool", 5, "average", (4, 4), (4, 4), (0, 0), False),
            Flatten((5,), "flat", 6),
            Linear((4,), "classes", 7, random.normal(size=(4, 5)), np.arange(4.0)),
        )
    )
