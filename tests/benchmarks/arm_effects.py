"""What each two-valued parameter of a finished study does to the error, over all else.

    python tests/benchmarks/arm_effects.py studies/cifar10_arms.yaml

Errors are averaged over the candidates that have one value and over those that have the other,
seed by seed, and the two are compared, paired by seed, with a 95 % interval and Holm's correction
for the number of parameters. Only sound where every combination of values was run.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse

import numpy as np

import sculpt
from sculpt.results.statistics import judge


def main() -> None:
    """Print one line for each parameter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--storage")
    arguments = parser.parse_args()
    table = sculpt.open_results(arguments.study, arguments.storage).complete
    table = table[table["role"] == "candidate"]
    names = [name for name in table if name.startswith("params.") and table[name].nunique() == 2]
    pairs, labels = [], []
    for name in names:
        low, high = sorted(table[name].unique())
        means = [
            np.mean(table[table[name] == value]["val_errors"].tolist(), axis=0)
            for value in (high, low)
        ]
        pairs.append((means[0].tolist(), means[1].tolist()))
        labels.append(f"{name.removeprefix('params.')}: {high} against {low}")
    for label, judged in zip(labels, judge(pairs), strict=True):
        found = judged["difference"]
        mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
        print(f"{label}: {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, p {found['p_holm']:.3f}")


if __name__ == "__main__":
    main()
