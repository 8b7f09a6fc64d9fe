"""What networks learn from a data set: a loss, and a metric to judge them by."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from sculpt.errors import InputError, SculptError
from sculpt.registry import imported

Function = Callable[[Tensor, Tensor], Tensor]
"""From outputs (N, K) and targets to one number."""

SummedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(inputs, outputs, targets) to a loss summed over the inputs."""

LOSSES: dict[str, Function] = {
    "cross_entropy": F.cross_entropy,
    "bce": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
}
"""Each a mean over the batch, and over all numbers of a target."""

TARGETS = {"cross_entropy": "classes", "error": "classes"}
"""Losses and metrics of class labels; the other ones here are of numbers."""


def _wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    right = (outputs.argmax(1) == targets) & outputs.isfinite().all(1)
    return (~right).sum()


def _wrong_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    right = ((outputs > 0) == (targets > 0.5)) & outputs.isfinite()
    return (~right).float().mean(1).sum()


def _squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean(1).sum()


def _distances(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean(1).sum()


METRICS: dict[str, Function] = {
    "error": _wrong,
    "label_error": _wrong_labels,
    "mse": _squares,
    "rmse": _squares,
    "mae": _distances,
}
"""Each summed over the inputs. `error`: share of inputs that are classified wrongly. `label_error`:
share of labels that are told wrongly, with the line at probability 1/2. `rmse` is rooted last."""


@dataclass(frozen=True)
class Task:
    """A loss and a metric by their names, so that it is sent to other processes as it is.

    Both are among those above, or callables `module:function` of a plug-in. A loss takes outputs
    (N, K) and targets, and returns the mean over the batch. A metric takes those of a whole set,
    and returns a number, lower is better; `loss` is the loss itself, taken so.
    """

    loss: str = "cross_entropy"
    metric: str = "error"

    @property
    def targets(self) -> str | None:
        """Kind of the targets: `classes` or `numbers`; None if it depends on somebody's code."""
        own = [name for name in (self.loss, self.metric) if name not in (*LOSSES, *METRICS)]
        known = [name for name in (self.loss, self.metric) if name not in own]
        return TARGETS.get(known[0], "numbers") if known else None

    def mean_loss(
        self, outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Compute the loss of a batch, which training descends.

        Raises:
            InputError: somebody's loss returns something else than one number.
        """
        if self.loss == "cross_entropy":
            return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
        return self._one_number(self.loss, self._loss(outputs, targets))

    def summed_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss summed over the inputs of a batch."""
        if self.loss == "cross_entropy":
            return F.cross_entropy(outputs, targets, reduction="sum")
        return self.mean_loss(outputs, targets) * len(outputs)

    def summed_metric(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        """Sum the metric over the inputs of a batch; None if it is of a whole set only."""
        known = METRICS.get(self.metric)
        return known(outputs, targets) if known else None

    def metric_of_mean(self, mean: float) -> float:
        """Compute the metric from the mean of `summed_metric` over all inputs."""
        return mean**0.5 if self.metric == "rmse" else mean

    def metric_of_set(self, outputs: Tensor, targets: Tensor) -> float:
        """Compute a metric that is of a whole set only: `loss`, or somebody's.

        Raises:
            InputError: it returns something else than one number.
        """
        name = self.loss if self.metric == "loss" else self.metric
        function = self._loss if self.metric == "loss" else _own(self.metric)
        return float(self._one_number(name, function(outputs, targets)))

    def try_out(self, targets: Tensor, outputs: int) -> None:
        """Call a loss and a metric of somebody's own once, before anything depends on them.

        Args:
            targets: Those of a data set.
            outputs: Numbers that a network returns for an input.

        Raises:
            InputError: one raises an error, or returns something else than one number; or nothing
                that depends on the outputs can be descended.
        """
        made = torch.linspace(-1, 1, len(targets) * outputs).view(len(targets), outputs)
        for name, own in (("loss", self.loss not in LOSSES), ("metric", ":" in self.metric)):
            if not own or not len(targets):
                continue
            try:
                if name == "metric":
                    self.metric_of_set(made, targets)
                    continue
                found = self.mean_loss(made.requires_grad_(), targets)
            except SculptError:
                raise
            except Exception as error:  # somebody's code raises anything
                raise InputError(
                    f"a {name} must take outputs {tuple(made.shape)} and targets "
                    f"{tuple(targets.shape)} of {targets.dtype}, but {getattr(self, name)} raises "
                    f"{type(error).__name__}: {error!s:.300}; change it"
                ) from error
            finally:
                made = made.detach()
            if not found.requires_grad:
                raise InputError(
                    f"a loss must be differentiable by the outputs, but {self.loss} returns a "
                    "number that is not; compute it with operations of torch"
                )

    def scoring_loss(self, scored: Tensor) -> Callable[[str], SummedLoss] | None:
        """Return the losses that criteria score on, by the name of their targets.

        `gt` is the loss itself. `uniform`, which needs no labels, is the loss to what is known
        without the inputs: probability 1/2 for `bce`, and for `mse` the mean of the targets.

        Args:
            scored: Targets (N, K) of the images to score on.

        Returns:
            None for cross-entropy, which the criteria know themselves. An InputError is raised for
            targets that have no meaning here.
        """
        if self.loss == "cross_entropy":
            return None

        def of(name: str) -> SummedLoss:
            if name == "gt":
                return lambda _, outputs, targets: self.summed_loss(outputs, targets)
            if name == "uniform" and self.loss == "bce":
                constant = torch.full_like(scored[:1], 0.5)
            elif name == "uniform" and self.loss == "mse":
                constant = scored.mean(0, keepdim=True)
            else:
                raise InputError(meaningless_targets(name, self.loss))
            return lambda _, outputs, targets: self.summed_loss(
                outputs, constant.to(outputs).expand_as(outputs)
            )

        return of

    @property
    def _loss(self) -> Function:
        return LOSSES.get(self.loss) or _own(self.loss)

    def _one_number(self, name: str, found: object) -> Tensor:
        if isinstance(found, Real):  # NumPy's numbers, too
            found = torch.tensor(float(found))
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"a loss or metric must return one number, but {name} returns {shape}; take the "
                "mean over the batch"
            )
        return found.reshape(())


CLASSIFICATION = Task()


def _own(reference: str) -> Function:
    """Return somebody's function, which is given a copy of the targets: it may write into them."""
    function = imported(reference)
    return lambda outputs, targets: function(outputs, targets.clone())


def meaningless_targets(targets: str, loss: str) -> str:
    """Say why a criterion cannot score on these targets under a loss."""
    choose = "gt, jacobian_1 or jacobian_2" if ":" in loss else "uniform, gt, jacobian_1 or _2"
    return (
        f"targets of a criterion must have a meaning under the study's loss, but {targets!r} has "
        f"none for {loss}; choose {choose}, or a criterion without targets"
    )
