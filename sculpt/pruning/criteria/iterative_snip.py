"""Iterative SNIP (de Jorge et al. 2021, Verdenius et al. 2020): pruning by SNIP in rounds."""

from torch import Tensor, nn

from sculpt.pruning.criteria.connection_sensitivity import (
    BatchNormMode,
    Precision,
    Targets,
    connection_sensitivity,
)
from sculpt.pruning.rounds import Rounds, score_in_rounds
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


@CRITERIA.register("iterative_snip")
def iterative_snip(
    model: nn.Module,
    task: PruningTask,
    *,
    rounds: Rounds = 100,
    targets: Targets = "uniform",
    batch_norm: BatchNormMode = "identity",
    precision: Precision = "float32",
) -> dict[str, Tensor]:
    """Score by connection sensitivity, again and again, while the network shrinks exponentially.

    Pruned weights are zero while the next round scores and never come back. Each round sees all
    images of the task.

    Args:
        rounds: At least 1; 1 is one-shot connection sensitivity.
        targets, batch_norm, precision: As in `connection_sensitivity`; targets `gt` are SNIP's own
            loss.

    Returns:
        The last round's connection sensitivity; 0 for what an earlier round pruned.

    Raises:
        InputError: there are no images, or an option is outside its range.
        NumericsError: a score is not finite.
    """

    def score(_: int) -> dict[str, Tensor]:
        return connection_sensitivity(
            model, task, targets=targets, batch_norm=batch_norm, precision=precision
        )

    return score_in_rounds(model, task, score, rounds)
