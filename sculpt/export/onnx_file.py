"""A program as an ONNX file: for every runtime, small because its weights unpack themselves."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sculpt.errors import InputError
from sculpt.export.program import Flatten, Program
from sculpt.files import replacing

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 13, 7
"""Of ONNX 1.8 (2020): what is needed is in it, so runtimes of all ages can load the files."""
BATCH = "batch"
"""Name of the first dimension, whose size is open."""


def to_onnx(
    program: Program, *, plain: bool = False, metadata: Mapping[str, str] | None = None
) -> "onnx.ModelProto":
    """Return a program as an ONNX model in float32, of `images` (batch, ...) to `logits`.

    Args:
        program:
            At least one operation follows its input.
        plain:
            Whether every weight is stored whole, zeros and all. Otherwise sparse ones are
            stored sparse, with nodes that unpack them when a runtime loads the file; that is
            smaller, computes the same, and is as fast with runtimes that compute constants once.
        metadata:
            Texts that are kept in the file, by name.

    Raises:
        InputError: the package `onnx` is not installed.
        NumericsError: a value is not finite in float32.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise InputError(
            "ONNX files must be made by the package onnx, but it is not installed; pip install "
            "'sculpt[export]'"
        ) from error
    # It imports onnx itself.
    from sculpt.export.onnx_graph import INPUT, OUTPUT
    from sculpt.export.onnx_operations import build_graph

    graph = build_graph(_flat(program), plain=plain)
    graph.nodes[-1].output[0] = OUTPUT
    images: list[str | int | None] = [BATCH, *program.input_shape]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, images)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, program.classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sculpt",
        producer_version=version("sculpt"),
        doc_string=_description(program, plain=plain),
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def write_onnx(
    program: Program,
    path: Path,
    *,
    plain: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a program as an ONNX file, see `to_onnx`.

    Raises:
        InputError: the package `onnx` is not installed.
        NumericsError: a value is not finite in float32.
        OSError: nothing can be written there; the file is then as it was.
    """
    data = to_onnx(program, plain=plain, metadata=metadata).SerializeToString(deterministic=True)
    with replacing(path) as part:
        part.write_bytes(data)


def _flat(program: Program) -> Program:
    """Return a program whose last operation gives one row of logits for each image."""
    last = program.operations[-1]
    if len(last.shape) == 1:
        return program
    row = Flatten((program.classes,), "flat", len(program.operations) - 1)
    return Program((*program.operations, row))


def _description(program: Program, *, plain: bool) -> str:
    weights = [layer.weight for layer in program.layers()]
    kept = sum(int(np.count_nonzero(weight)) for weight in weights)
    stored = (
        "all are stored"
        if plain
        else "sparse ones are stored sparse, and computed once when the file is loaded"
    )
    return (
        f"Sparse network: {kept:,} of {sum(weight.size for weight in weights):,} weights are not "
        f"zero; {stored}."
    )
