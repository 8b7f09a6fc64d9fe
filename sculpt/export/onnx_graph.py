"""An ONNX graph under construction: nodes, constants, and a name of its own for every value."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

INPUT, OUTPUT = "images", "logits"


class Graph:
    """Takes nodes in the order in which they are done; what they are given must be there."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = {INPUT, OUTPUT}
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add an operation of ONNX, and return the name of its result."""
        output = self._unused(name)
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, values: NDArray[Any], name: str) -> str:
        """Add an array, and return its name."""
        name = self._unused(name)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def shared(self, values: NDArray[Any]) -> str:
        """Return the name of a small array that the graph has once, whoever asks for it."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(values, f"constant_{len(self._shared)}")
        return self._shared[key]

    def integers(self, *values: int) -> str:
        """Return the name of a shared list of int64: shapes, paddings and the like."""
        return self.shared(np.array(values, np.int64))

    def _unused(self, name: str) -> str:
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found
