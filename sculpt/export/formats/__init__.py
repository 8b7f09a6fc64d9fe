"""File formats of a trained network: each makes the content of one file, and runs such a file.

A format is a registered class, one file here; `sculpt export`, `sculpt verify` and the model card
find it by its name.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from sculpt.export.condensing import certified_program
from sculpt.export.loading import Loaded
from sculpt.export.module import without_gradients
from sculpt.export.program import Program

Run = Callable[[Tensor], Tensor]
"""From images (N, ...) to logits (N, classes), both float32 on the CPU."""


@dataclass(frozen=True, eq=False)
class Network(Loaded):
    """A trained network that is being exported."""

    images: Tensor
    """Reference images (N, ...), normalised."""

    @cached_property
    def program(self) -> Program:
        """Its condensed program, certified in float64 on the reference images.

        Raises:
            ExportError: it has an unknown operation, or computes something else.
        """
        return certified_program(self.model, self.masks, self.images)

    def run_with(self, state: dict[str, Tensor]) -> Run:
        """Return a function that runs the network with another state; RuntimeError if that is of
        another network."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(state)
        return without_gradients(model)


class Format(Protocol):
    """Makes a network's file, and runs it. A package that is not installed is an ImportError."""

    file: ClassVar[str]
    """Name of the file."""
    kind: ClassVar[str]
    """What the file must be, for messages."""
    purpose: ClassVar[str]
    """Its use, in a few words."""
    example: ClassVar[str]
    """Python that loads and runs it without sculpt, for the model card; `{shape}` is that of a
    batch of one image, `{classes}` the number of logits."""
    is_code: ClassVar[bool]
    """Whether to run the file is to run whatever somebody has written into it."""

    @staticmethod
    def content(network: Network) -> bytes:
        """Return the content of the file; ExportError if the format cannot hold the network."""

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file; `network` is that of the bundle beside it.

        It raises anything for a file that is of another kind, or of another network.
        """
