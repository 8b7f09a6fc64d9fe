"""File formats of a trained network: each writes one file, and runs what it wrote.

A format is a class with a registered name, one file here; `sculpt export`, `sculpt verify` and
the model card find it by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor

from sculpt.export.condensing import condense
from sculpt.export.evaluation import certify
from sculpt.export.loading import Loaded
from sculpt.export.lowering import lower
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
            ExportError: it has an operation that is not known, or computes something else.
        """
        program = condense(lower(self.model, self.masks, self.images))
        certify(self.model, self.masks, program, self.images)
        return program


class Format(Protocol):
    """How a network is written, and run again."""

    file: ClassVar[str]
    """Name of the file."""
    purpose: ClassVar[str]
    """What it is good for, in a few words."""
    example: ClassVar[str]
    """Python that loads and runs it without sculpt, for the model card; `{shape}` is that of a
    batch of one image, `{classes}` the number of logits."""

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file.

        Raises:
            ExportError: the network cannot be written so.
            InputError: a package or a program that this takes is not installed.
            OSError: nothing can be written there.
        """

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return what runs the file; `network` is that of the bundle beside it.

        Raises:
            InputError: the file cannot be read, or what runs it is not installed.
        """
