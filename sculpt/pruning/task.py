"""What a criterion is given besides the network."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sculpt.pruning.masks import Masks
from sculpt.pruning.selection import Selection, required_shape, select_masks

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Starts a pass over (inputs (N, ...) float32, labels (N,) int64)."""


@dataclass(frozen=True)
class PruningTask:
    """What is to be pruned, how far, and what may be looked at to decide."""

    model: nn.Module
    kept: int
    """How many prunable parameters stay (`prunable_budget`)."""
    batches: Batches = tuple
    """By default of no images, for criteria that look at none."""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    """On the CPU."""
    input_shape: tuple[int, ...] | None = None
    """Of one input, without its batch dimension, for example (3, 32, 32)."""
    selection: Selection = field(default_factory=Selection)
    """How scores become masks."""

    def select(self, scores: Mapping[str, Tensor], kept: int | None = None) -> Masks:
        """Return the masks of the highest scores; of `kept` weights instead of the task's.

        Raises:
            NumericsError, BudgetError, DryRankingError: see `select_masks`.
        """
        return select_masks(
            self.model,
            scores,
            self.kept if kept is None else kept,
            self.selection,
            self.input_shape,
        )

    def required_shape(self, who: str) -> tuple[int, ...]:
        """Return the input's shape, see `sculpt.pruning.selection.required_shape`."""
        return required_shape(self.input_shape, who)

    def draws(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return uniform draws from (0, 1], on the CPU."""
        # 1 - [0, 1): an exact zero would count as a missing score.
        return 1 - torch.rand(shape, generator=self.generator, device="cpu", dtype=dtype)
