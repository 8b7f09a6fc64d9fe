"""Learning rates over a run, as factors on the recipe's rate."""


def rate_factor(schedule: str, step: int, steps: int) -> float:
    """Scale the learning rate at one optimiser step, from 0 to `steps` - 1.

    `step` divides by 10 at each quarter of the run (Lee et al. 2020, §5: at every 25k of 100k
    iterations); `one_cycle` rises to the rate over the first fifth and falls towards zero,
    which it would reach after the last step (Smith & Topin 2018, without the momentum);
    `constant` stays. However short the run, `one_cycle` reaches the full rate; the others start at
    it.
    """
    if schedule == "step":
        # A step belongs to the quarter in which it starts.
        return 0.1 ** (4 * step // steps)
    if schedule == "one_cycle":
        rise = max(1, round(steps / 5))
        return min((step + 1) / rise, (steps - step) / (steps - rise + 1))
    return 1.0
