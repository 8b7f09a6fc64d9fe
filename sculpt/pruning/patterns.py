"""N:M patterns: of every M consecutive inputs of an output, at most N weights are kept.

Mishra et al. 2021, *Accelerating Sparse Deep Neural Networks*; sparse tensor cores multiply 2:4.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sculpt.diagnostics.layers import (
    Layer,
    by_output,
    from_outputs,
    prunable_parameters,
    weighted_layers,
)
from sculpt.errors import BudgetError, DryRankingError, InputError
from sculpt.pruning.masks import Masks, Scores, keep_highest

LARGEST_GROUP = 32


@dataclass(frozen=True)
class Pattern:
    """A pattern N:M along the input channels of layers.

    The inputs of an output, those of its group alone, are cut into runs of M from the first one on,
    at each position of a kernel for itself. Each run keeps at most N weights. A last run that is
    shorter than M does so, too, as if it were filled up with zeros. Layers with fewer than M inputs
    to an output (the first layer of an image network, depthwise ones) and biases are left out: they
    are ranked weight by weight.
    """

    kept: int
    """N."""
    run: int
    """M."""

    def __str__(self) -> str:
        return f"{self.kept}:{self.run}"

    def holds_for(self, layer: Layer) -> bool:
        """Whether the pattern applies to a layer."""
        return int(by_output(layer, layer.weight).shape[1]) >= self.run

    def limits(self, model: nn.Module) -> dict[str, int]:
        """Count the weights that each prunable parameter keeps at most, by name."""
        layers, limits = weighted_layers(model), {}
        for name, parameter in prunable_parameters(model).items():
            limits[name] = parameter.numel()
            if name in layers and self.holds_for(layers[name]):
                outputs, inputs, positions = by_output(layers[name], parameter).shape
                runs, rest = divmod(inputs, self.run)
                limits[name] = outputs * positions * (runs * self.kept + min(rest, self.kept))
        return limits

    def check_budget(self, model: nn.Module, kept: int) -> None:
        """Refuse to keep more weights than the pattern has room for.

        Raises:
            BudgetError: the message says the largest number.
        """
        limits = self.limits(model)
        if kept > (most := sum(limits.values())):
            whole = sum(
                limit
                for name, limit in limits.items()
                if limit == model.get_parameter(name).numel()
            )
            raise BudgetError(
                f"granularity {self} must leave room for the budget, but of the prunable weights "
                f"and biases it keeps at most {most} ({whole} of them biases and layers of fewer "
                f"than {self.run} inputs, which it spares), and the budget leaves {kept} of them; "
                f"choose a budget that is smaller by {kept - most}, or a wider network"
            )

    def best(self, model: nn.Module, scores: Scores) -> Masks:
        """Mask all but the N highest scores of each run, ties going to the first inputs."""
        layers = weighted_layers(model)
        return {
            name: self._best(layers[name], score)
            if name in layers and self.holds_for(layers[name])
            else torch.ones_like(score, dtype=torch.bool)
            for name, score in scores.items()
        }

    def _best(self, layer: Layer, score: Tensor) -> Tensor:
        rows = by_output(layer, score).movedim(1, 2)  # (outputs, kernel, inputs)
        chosen = torch.zeros_like(rows, dtype=torch.bool)
        for part, mask in zip(self._runs(rows), self._runs(chosen), strict=True):
            order = part.argsort(dim=-1, descending=True, stable=True)
            # Into the view, whose memory is that of `chosen`.
            mask.copy_(torch.zeros_like(mask).scatter_(-1, order[..., : self.kept], True))
        return from_outputs(layer, chosen.movedim(2, 1)).contiguous()

    def shuffled(self, layer: Layer, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Permute the runs of a mask, and what is within each, uniformly: a pattern stays one."""
        rows = by_output(layer, mask).movedim(1, 2)
        moved = torch.zeros_like(rows)
        for part, place in zip(self._runs(rows), self._runs(moved), strict=True):
            runs = part.reshape(-1, part.shape[-1])
            draws = torch.rand(runs.shape, generator=generator, device="cpu")
            within = draws.argsort(1).to(runs.device)
            among = torch.randperm(len(runs), generator=generator, device="cpu")
            place.copy_(runs.gather(1, within)[among.to(runs.device)].view(part.shape))
        return from_outputs(layer, moved.movedim(2, 1)).contiguous()

    def _runs(self, rows: Tensor) -> list[Tensor]:
        """View rows (..., inputs) as runs (..., runs, M), and the rest, if there is one."""
        whole = rows.shape[-1] // self.run * self.run
        runs = rows[..., :whole].unflatten(-1, (-1, self.run))
        rest = rows[..., None, whole:]
        return [runs, rest] if rest.shape[-1] else [runs]


def pattern_of(granularity: str) -> Pattern | None:
    """Read a granularity as a pattern; None if it is none.

    Raises:
        InputError: N is not below M, or M is too large.
    """
    found = re.fullmatch(r"([1-9][0-9]?):([1-9][0-9]?)", str(granularity))
    if not found:
        return None
    kept, run = int(found[1]), int(found[2])
    if not kept < run <= LARGEST_GROUP:
        raise InputError(
            f"a pattern N:M must have 1 ≤ N < M ≤ {LARGEST_GROUP}, but got {granularity}; "
            "2:4 is what sparse tensor cores multiply"
        )
    return Pattern(kept, run)


def keep_between_rounds(best: Masks, scores: Scores, kept: int) -> Masks:
    """Keep the best of each run, and of the others as many as a budget has room for.

    Criteria that prune in rounds keep more weights at first than a pattern allows. What it will
    keep in the end must not go before, or runs would lose more than they have to.
    """
    spared = {name: mask & (scores[name] != 0) for name, mask in best.items()}
    others = {name: scores[name].where(~spared[name], 0) for name in scores}
    more = keep_highest(others, kept - sum(int(mask.sum()) for mask in spared.values()))
    return {name: mask | more[name] for name, mask in spared.items()}


def check_scored(pattern: Pattern, best: Masks, scores: Scores, kept: int) -> None:
    """Refuse scores of which too few are in the places that a pattern has.

    Raises:
        DryRankingError: fewer than `kept` weights are among the best of their runs and have a
            score.
    """
    usable = sum(int(torch.count_nonzero(scores[name][mask])) for name, mask in best.items())
    room = sum(int(mask.sum()) for mask in best.values())
    if usable < kept < room:
        raise DryRankingError(
            f"at least {kept} scores must be non-zero among the {pattern.kept} highest of every "
            f"{pattern.run} inputs, but only {usable} are; choose a smaller budget, all of the "
            f"{room} that the pattern has room for, which asks for no ranking, or a criterion that "
            "scores every weight (erk_random and npb choose a whole mask by themselves)"
        )
