"""Learning-rate schedules, one step of the schedule per step of the optimiser."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR


def make_schedule(name: str, optimizer: Optimizer, steps: int) -> LRScheduler:
    """Return a schedule over `steps` optimiser steps, from the optimiser's learning rate.

    `step` divides by 10 at each quarter of the run (Lee et al. 2020, §5: at every 25k of 100k
    iterations); `one_cycle` rises to the rate over the first fifth and falls towards zero,
    which it reaches after the last step (Smith & Topin 2018); `constant` stays. However short
    the run, each but `one_cycle` starts at the full rate, and that one reaches it.
    """
    if name == "step":
        # Rounded up: a step belongs to the quarter in which it starts.
        return MultiStepLR(
            optimizer, [-(-steps * quarter // 4) for quarter in (1, 2, 3)], gamma=0.1
        )
    if name == "one_cycle":
        rise = max(1, round(steps / 5))
        fall = steps - rise + 1
        return LambdaLR(optimizer, lambda step: min((step + 1) / rise, (steps - step) / fall))
    return LambdaLR(optimizer, lambda step: 1.0)
