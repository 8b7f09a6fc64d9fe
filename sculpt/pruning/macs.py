"""Budgets of multiply-accumulates (MACs): how many weights a limit of work leaves.

A kept weight costs one MAC at every position that it is used at, so a convolution's weight at the
input of an image network costs a thousand times as much as one of the classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from sculpt.errors import BudgetError, DryRankingError
from sculpt.pruning.masks import Masks, Scores

if TYPE_CHECKING:
    from sculpt.pruning.patterns import Pattern
    from sculpt.pruning.task import PruningTask

Positions = Mapping[str, int]
"""Uses of each weight for one input, by parameter name; biases are not counted."""


def fit_to_macs(
    task: PruningTask, score: Callable[[PruningTask], Scores]
) -> tuple[PruningTask, Scores]:
    """Solve how many weights a task may keep within its MACs, by bisection on their number.

    Args:
        task: In `kept` the most weights it may keep; as it is, if it has no `macs`.
        score: A criterion. Called twice where its scores do not depend on the number of kept
            weights, and else about as often as that number has binary digits.

    Returns:
        The task with its number of kept weights, and the scores for it.

    Raises:
        BudgetError: not one weight fits.
        DryRankingError: too few weights have a score to spend the MACs.
    """
    if task.macs is None:
        return task, score(task)
    most = task.macs
    positions = task.positions("a budget of MACs")
    state = task.generator.get_state()

    def scored(kept: int) -> Scores:
        return score(asked(kept))

    def asked(kept: int) -> PruningTask:
        return replace(task, kept=kept, most=task.kept, generator=_generator(state))

    first = scores = scored(task.kept)
    low, high, kept = 0, task.kept + 1, task.kept
    solved: Scores | None = None
    fault: BudgetError | DryRankingError | None = None
    """Of the fewest weights that are too many."""
    follows: bool | None = None
    """Whether scores depend on the number of kept weights, once it is known."""
    while high - low > 1:
        try:
            if kept != task.kept and follows is not False:
                scores = scored(kept)
                follows = follows or not _equal(scores, first)
            if macs_of(task.select(scores, kept), positions) <= most:
                low, solved = kept, scores
            else:
                high, fault = kept, None
        except (BudgetError, DryRankingError) as error:
            high, fault = kept, error
        kept = (low + high) // 2
    if solved is None or fault is not None:
        raise fault or BudgetError(
            f"a budget must have room for a weight, but none fits {most} MACs; raise it"
        )
    return asked(low), solved


def _generator(state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def check_macs(model: nn.Module, positions: Positions, macs: int, pattern: Pattern | None) -> None:
    """Refuse a network that takes fewer MACs than the budget, even with all its weights.

    Raises:
        BudgetError: the message says how many it takes.
    """
    limits = pattern.limits(model) if pattern else {}
    room = sum(
        uses * limits.get(name, model.get_parameter(name).numel())
        for name, uses in positions.items()
    )
    if room < macs:
        kept = f"the {pattern} of its weights that granularity leaves" if pattern else "all weights"
        raise BudgetError(
            f"a network must take at least the budget's {macs} MACs, but takes {room} with "
            f"{kept}; choose a larger network or a smaller budget"
        )


def fill_up(task: PruningTask, masks: Masks, scores: Scores) -> Masks:
    """Spend the MACs that a ranking left, on the best of the weights that are cheap enough.

    The next weight of a ranking may cost more than is left. Rankings of single weights alone are
    filled; groups, patterns, paths and densities of layers stay as they are.
    """
    rule = task.rule
    plain = rule.granularity == "weight" and rule.scope == "global"
    if task.macs is None or not plain or rule.effective or rule.layer_budgets:
        return masks
    positions = task.positions("a budget of MACs")
    names = [name for name in scores if positions.get(name)]
    priced, costs = [], []
    for name in names:
        score, uses = scores[name].where(~masks[name], 0), positions[name]
        priced.append((score / uses**rule.mac_exponent).flatten())
        costs.append(torch.full_like(score, uses, dtype=torch.int64).flatten())
    others, cost = torch.cat(priced), torch.cat(costs)
    left = task.macs - macs_of(masks, positions)
    room = task.most - sum(int(masks[name].sum()) for name in scores)
    order = others.argsort(descending=True, stable=True)
    order = order[others[order] != 0]
    chosen = torch.zeros_like(others, dtype=torch.bool)
    while room > 0 and len(order := order[cost[order] <= left]):
        # At least the first of them fits.
        taken = order[cost[order].cumsum(0) <= left][:room]
        chosen[taken] = True
        left -= int(cost[taken].sum())
        room -= len(taken)
        order = order[~chosen[order]]
    parts = chosen.split([scores[name].numel() for name in names])
    filled = {
        name: masks[name] | part.view(masks[name].shape)
        for name, part in zip(names, parts, strict=True)
    }
    return masks | filled


def macs_of(masks: Masks, positions: Positions) -> int:
    """Count the multiply-accumulates on kept weights."""
    return sum(int(masks[name].sum()) * uses for name, uses in positions.items() if name in masks)


def _equal(one: Scores, other: Scores) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
