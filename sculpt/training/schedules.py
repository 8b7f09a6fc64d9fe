"""Learning rates over a run, as factors on the recipe's rate."""

import math


def rate_factor(schedule: str, step: int, steps: int, warm_up: float = 0.0) -> float:
    """Scale the learning rate at one optimiser step, from 0 to `steps` - 1.

    `step` divides by 10 at each quarter of the run (Lee et al. 2020, §5: at every 25k of 100k
    iterations); `one_cycle` rises to the rate over the first fifth and falls towards zero,
    which it would reach after the last step (Smith & Topin 2018, without the momentum);
    `cosine` falls to zero by half a cosine (Loshchilov & Hutter 2017, without restarts);
    `constant` stays. However short the run, `one_cycle` reaches the full rate; the others start at
    it, or rise to it, linearly, over a share `warm_up` of the steps, and begin then.
    """
    rising = round(warm_up * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    step, steps = step - rising, steps - rising
    if schedule == "step":
        # A step belongs to the quarter in which it starts.
        return 0.1 ** (4 * step // steps)
    if schedule == "one_cycle":
        rise = max(1, round(steps / 5))
        return min((step + 1) / rise, (steps - step) / (steps - rise + 1))
    if schedule == "cosine":
        return (1 + math.cos(math.pi * step / steps)) / 2
    return 1.0
