"""The task given to a criterion: the network, its budget, and the images to score on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.cost import Cost, check_counted, measure_cost
from sculpt.errors import BudgetError, DryRankingError
from sculpt.pruning.batches import Batches
from sculpt.pruning.macs import fill_up
from sculpt.pruning.mask_rule import MaskRule, count_nonzero, required_shape, select_masks
from sculpt.pruning.masks import Masks, Scores, WholeMask

Loss = Callable[[nn.Module, Any], Tensor]
"""(network, batch) to a number that can be differentiated by the weights."""

Criterion = Callable[["PruningTask"], Scores]
"""A criterion on the task's network, with its options."""


@dataclass(frozen=True)
class PruningTask:
    """A network, the budget it is pruned to, and the data and draws that decide how."""

    model: nn.Module
    kept: int
    """Prunable parameters to keep (`prunable_budget`); at most, until `scored` solves them."""
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
    """Most weights that may be kept within the MACs, where `kept` was solved for these, ..."""
    cost: Cost | None = None
    """... and the cost of the network."""

    def scored(self, criterion: Criterion) -> tuple["PruningTask", Scores]:
        """Score the network; where MACs are limited, solve how many weights these leave.

        Args:
            criterion: Called once. With `macs` the number of kept weights is bisected: it is called
                twice where its scores do not depend on that number, and else about as often as it
                has binary digits, each time with the same draws.

        Returns:
            The task with its number of kept weights, and the scores for it.

        Raises:
            BudgetError: not one weight fits the MACs.
            DryRankingError: too few weights have a score to spend the MACs.
        """
        if self.macs is None:
            return self, criterion(self)
        cost = measure_cost(self.model, self.required_shape("a budget of MACs"))
        check_counted(self.model, cost)
        state = self.generator.get_state()

        def keeping(kept: int) -> PruningTask:
            generator = torch.Generator()
            generator.set_state(state)
            return replace(self, kept=kept, most=self.kept, cost=cost, generator=generator)

        first = scores = criterion(keeping(self.kept))
        low, high, kept = 0, self.kept + 1, self.kept
        solved: Scores | None = None
        fault: BudgetError | DryRankingError | None = None  # of the fewest that are too many
        follows: bool | None = None  # whether scores depend on the number, once it is known
        while high - low > 1:
            try:
                if kept != self.kept and follows is not False:
                    scores = criterion(keeping(kept))
                    follows = follows or not _equal(scores, first)
                if cost.kept_macs(self.select(scores, kept)) <= self.macs:
                    low, solved = kept, scores
                else:
                    high, fault = kept, None
            except (BudgetError, DryRankingError) as error:
                high, fault = kept, error
            kept = (low + high) // 2
        if solved is None or fault is not None:
            raise fault or BudgetError(
                f"a budget must have room for a weight, but none fits {self.macs} MACs; raise it"
            )
        return keeping(low), solved

    def select(self, scores: Scores, kept: int | None = None) -> Masks:
        """Mask all but the `kept` highest scores; by default as many as the task keeps.

        With `macs` a ranking of single weights is then filled up (`fill_up`); groups, patterns,
        paths and densities of layers stay as they are. So does what is a mask already.

        Raises:
            NumericsError, BudgetError, DryRankingError: see `select_masks`.
        """
        if isinstance(scores, WholeMask):
            return select_masks(self.model, scores, count_nonzero(scores), MaskRule(), None)
        masks = select_masks(
            self.model, scores, self.kept if kept is None else kept, self.rule, self.input_shape
        )
        if kept is not None or self.macs is None or not self.rule.ranks_single_weights:
            return masks
        assert self.cost is not None, "`scored` made this task"
        room = self.most - sum(int(masks[name].sum()) for name in scores)
        exponent = self.rule.mac_exponent
        return fill_up(masks, scores, self.cost, macs=self.macs, room=room, exponent=exponent)

    def select_for_now(self, scores: Scores, kept: int) -> Masks:
        """Mask all but the `kept` highest scores, of which later rounds will keep fewer.

        Raises:
            NumericsError, BudgetError, DryRankingError: see `select_masks`.
        """
        return select_masks(self.model, scores, kept, self.rule, self.input_shape, final=self.kept)

    def required_shape(self, user: str) -> InputShape:
        """Return the input's shape, see `sculpt.pruning.mask_rule.required_shape`."""
        return required_shape(self.input_shape, user)

    def draws(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw uniformly from (0, 1], on the CPU."""
        # 1 - [0, 1): an exact zero would count as a missing score.
        return 1 - torch.rand(shape, generator=self.generator, device="cpu", dtype=dtype)


def _equal(one: Scores, other: Scores) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
