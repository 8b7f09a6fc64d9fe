"""File formats of a trained network: each writes one file, and runs what it wrote.

A format is a registered class, one file here; `sculpt export`, `sculpt verify` and the model card
find it by its name.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

from safetensors import SafetensorError
from torch import Tensor

from sculpt.errors import InputError
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

    def run_with_state(self, path: Path, read: Callable[[Path], dict[str, Tensor]]) -> Run:
        """Return a function that runs the network with a file's state.

        Raises:
            InputError: the file cannot be read, or its state is of another network.
        """
        model = copy.deepcopy(self.model)
        try:
            model.load_state_dict(read(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{path}: must be the state of the network beside it, but is not ({error!s:.300})"
            ) from error
        return without_gradients(model)


class Format(Protocol):
    """Writes a network, and runs it again."""

    file: ClassVar[str]
    """Name of the file."""
    purpose: ClassVar[str]
    """Its use, in a few words."""
    example: ClassVar[str]
    """Python that loads and runs it without sculpt, for the model card; `{shape}` is that of a
    batch of one image, `{classes}` the number of logits."""

    @staticmethod
    def write(network: Network, path: Path) -> None:
        """Write the file.

        Raises:
            ExportError: the format cannot hold the network.
            InputError: a package or a program that this needs is not installed.
            OSError: nothing can be written there.
        """

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file; `network` is that of the bundle beside it.

        Raises:
            InputError: the file cannot be read, or its runtime is not installed.
        """
