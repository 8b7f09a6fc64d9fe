"""The task given to a criterion: the network, its budget, and the images to score on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.cost import measure_cost
from sculpt.pruning.batches import Batches
from sculpt.pruning.macs import fill_up
from sculpt.pruning.mask_rule import MaskRule, required_shape, select_masks
from sculpt.pruning.masks import Masks, Scores

Loss = Callable[[nn.Module, Any], Tensor]
"""(network, batch) to a number that can be differentiated by the weights."""


@dataclass(frozen=True)
class PruningTask:
    """A network, the budget it is pruned to, and the data and draws that decide how."""

    model: nn.Module
    kept: int
    """Prunable parameters to keep (`prunable_budget`); at most, until `fit_to_macs` solves them."""
    batches: Batches = tuple
    """Scoring images; none by default, for criteria that look at no data."""
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    """On the CPU."""
    input_shape: InputShape | None = None
    """Shape of one input without its batch dimension, for example (3, 32, 32)."""
    rule: MaskRule = field(default_factory=MaskRule)
    """How scores become masks."""
    loss: Loss | None = None
    """In place of a criterion's own; then each of the batches is whole, as the loss takes it."""
    target_losses: Callable[[str], Callable[[Any, Tensor, Tensor], Tensor]] | None = None
    """Losses other than cross-entropy by the name of a criterion's targets (`gt`, `uniform`): each
    of (inputs, outputs, labels), summed over the inputs. InputError for targets without one."""
    macs: int | None = None
    """Most multiply-accumulates on kept weights for one input; None is no limit."""
    most: int = 0
    """Most weights that may be kept within the MACs, where `kept` was solved for these."""

    def select(self, scores: Scores, kept: int | None = None) -> Masks:
        """Mask all but the `kept` highest scores.

        By default as many as the task keeps, and others for the MACs that are left (`fill_up`).

        Raises:
            NumericsError, BudgetError, DryRankingError: see `select_masks`.
        """
        if kept is not None or self.macs is None:
            kept = self.kept if kept is None else kept
            return select_masks(self.model, scores, kept, self.rule, self.input_shape)
        return fill_up(self, self.select(scores, self.kept), scores)

    def select_for_now(self, scores: Scores, kept: int) -> Masks:
        """Mask all but the `kept` highest scores, of which later rounds will keep fewer.

        Raises:
            NumericsError, BudgetError, DryRankingError: see `select_masks`.
        """
        return select_masks(self.model, scores, kept, self.rule, self.input_shape, final=self.kept)

    def required_shape(self, user: str) -> InputShape:
        """Return the input's shape, see `sculpt.pruning.mask_rule.required_shape`."""
        return required_shape(self.input_shape, user)

    def positions(self, user: str) -> Mapping[str, int]:
        """Count the uses of each weight for one input, by name; InputError without its shape."""
        return measure_cost(self.model, self.required_shape(user)).positions

    def draws(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw uniformly from (0, 1], on the CPU."""
        # 1 - [0, 1): an exact zero would count as a missing score.
        return 1 - torch.rand(shape, generator=self.generator, device="cpu", dtype=dtype)
