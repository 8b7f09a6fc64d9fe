"""Measures of a pruned network that are known before it is trained."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sculpt.config import Proxy


@dataclass(frozen=True)
class Measure:
    """How a proxy is read off the record of one seed."""

    read: Callable[[dict[str, Any]], float | None]
    higher_is_better: bool

    def badness(self, record: dict[str, Any]) -> float:
        """Return it with its sign such that lower is better; what is missing is worst."""
        value = self.read(record)
        if value is None:
            return WORST
        return -value if self.higher_is_better else value


WORST = 1e308
"""Finite, because not every storage takes an infinity."""


def _last_signal(quantity: str) -> Callable[[dict[str, Any]], float | None]:
    """Return a reader of how signals travel after the last step that the network went through."""

    def read(record: dict[str, Any]) -> float | None:
        return list(record["signal"].values())[-1][quantity]

    return read


def _far_from_isometry(record: dict[str, Any]) -> float | None:
    jacobian = _last_signal("jacobian")(record)
    mean = jacobian["mean"] if isinstance(jacobian, dict) else None
    return abs(math.log(mean)) if mean else None


PROXIES: dict[Proxy, Measure] = {
    "effective_nodes": Measure(_last_signal("effective_nodes"), True),
    "effective_parameters": Measure(_last_signal("effective_parameters"), True),
    "log10_paths": Measure(_last_signal("log10_paths"), True),
    # Lee et al. 2020, §5: the nearer to isometry, the better it trains.
    "orthogonality_score": Measure(_last_signal("orthogonality_score"), False),
    "jacobian_mean": Measure(_far_from_isometry, False),
    "score_kept": Measure(lambda record: record.get("score_kept"), True),
    "score_share": Measure(lambda record: record.get("score_share"), True),
}
