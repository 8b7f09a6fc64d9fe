"""How fast masked networks are trained: sculpt's loop against a plain PyTorch one, in one run.

    python tests/benchmarks/training.py --data-root DIR
    python tests/benchmarks/training.py --device cuda --widening 1 2 4 8 --steps 100 --json

ResNet(k, 3) on 32×32 images with the paper's recipe (batches of 128, flips, shifts by 4). k = 1
is the dense base; the others keep its 269,034 parameters, scored by connection sensitivity
(uniform targets, batch norm `identity`); they are not repaired, which changes no speed. DIR
holds CIFAR-10 as train/<class>/*, test/<class>/*; without it the images are random.

Ours is `sculpt.training.loop.train` as a trial calls it; theirs is
`sculpt/benchmark/standard_loop.py` in a process of its own. They take `--repeats` turns of two
epochs each, the last of which counts, the whole data path included. `ratio` is the median over
the turns. GFLOP/s are 6 · MACs · images/s (forward 2, backward 4): `effective` with the MACs of
the dense network of that width, `trained` with those of the network as sculpt trains it.
`share` is the latter over the rate of a bfloat16 matrix product on the same threads.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
from statistics import median
from time import perf_counter
from typing import Any

import torch
from paper_networks import INPUT_SHAPE, finish, load, show, sparse_network, training_options, wait

from sculpt.benchmark.race import Effort, Opponent, race, standard_opponent
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.diagnostics.cost import measure_cost
from sculpt.pruning.masks import count_kept, count_parameters


def main() -> None:
    """Measure, and print rows or JSON."""
    parser = training_options(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="of a measured epoch")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    splits = load(options.data_root).to(options.device)
    # Epochs enough that on CUDA a step is captured, as in a trial.
    recipe = Training(
        epochs=30, batch_size=options.batch, flip=True, translate=4, precision=options.precision
    )
    with standard_opponent() as opponent:
        rows = [
            show(measure(widening, splits, recipe, opponent, options), options)
            for widening in options.widening
        ]
    finish(options, rows)


def measure(
    widening: int, splits: Splits, recipe: Training, opponent: Opponent, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure one network."""
    model, masks = sparse_network(widening, splits, options.seed)
    product = matmul_rate(splits.train.device, options.repeats)
    effort = Effort(options.repeats, steps=options.steps)
    rates = race(model, masks, splits, recipe, effort, opponent)
    ours = median(rates.sculpt)
    dense = measure_cost(model, INPUT_SHAPE)
    trained = 6 * measure_cost(rates.trained, INPUT_SHAPE).dense_macs * ours
    return {
        "widening": widening,
        "kept_parameters": count_kept(model, masks, "paper"),
        "dense_parameters": count_parameters(model, "paper"),
        "dense_macs": dense.dense_macs,
        "kept_macs": dense.kept_macs(masks),
        "sculpt": ours,
        "standard": median(rates.standard),
        "ratio": rates.ratio,
        "sculpt_each": rates.sculpt,
        "standard_each": rates.standard,
        "effective_gflops": 6 * dense.dense_macs * ours / 1e9,
        "trained_gflops": trained / 1e9,
        "matmul_gflops": product / 1e9,
        "share": trained / product,
    }


def matmul_rate(device: torch.device, repeats: int) -> float:
    """Measure FLOP/s of a bfloat16 matrix product: the median after one to warm up."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device).bfloat16()
    seconds = []
    for _ in range(repeats + 1):
        start = perf_counter()
        matrix @ matrix
        wait(device)
        seconds.append(perf_counter() - start)
    return 2 * size**3 / median(seconds[1:])


if __name__ == "__main__":
    main()
