"""What networks of a study learn, and the metric that judges them."""

import re
from typing import Self

from pydantic import model_validator

from sculpt.config.sections import Section
from sculpt.registry import REFERENCE
from sculpt.units import Metric

METRICS = {
    "cross_entropy": ("error",),
    "bce": ("label_error",),
    "mse": ("mse", "rmse", "mae"),
}
"""Losses, and the metrics for each; the first is the default."""

OF_OWN_LOSSES = ("loss", *(name for names in METRICS.values() for name in names))


class Task(Section):
    """A loss and a metric: names, or callables of one's own as `module:function`."""

    loss: str = "cross_entropy"
    """`cross_entropy` of classes, `bce` of several labels each (targets (N, K) from 0 to 1), `mse`
    of numbers (N,) or (N, K); or a function of outputs (N, K) and targets that returns their mean
    loss."""
    metric: str = ""
    """Lower is better. `error`: share of inputs classified wrongly; `label_error`: of labels told
    wrongly; `mse`, `rmse`, `mae`; `loss`: the mean of an own loss; or a function of the outputs and
    targets of a whole set that returns a number. By default the first that fits the loss."""

    @model_validator(mode="before")
    @classmethod
    def _choose_metric(cls, given: object) -> object:
        if not isinstance(given, dict) or given.get("metric") is not None:
            return given
        known = METRICS.get(str(given.get("loss", "cross_entropy")), OF_OWN_LOSSES)
        return {**given, "metric": known[0]}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.loss not in METRICS and not re.fullmatch(REFERENCE, self.loss):
            raise ValueError(f"have a loss among {', '.join(METRICS)}, or module:function")
        known = METRICS.get(self.loss, OF_OWN_LOSSES)
        if self.metric not in known and not re.fullmatch(REFERENCE, self.metric):
            raise ValueError(
                f"have a metric among {', '.join(known)}, or module:function, for the loss "
                f"{self.loss}"
            )
        return self

    @property
    def shown(self) -> Metric:
        """The metric as people read it."""
        return Metric.named(self.metric)
