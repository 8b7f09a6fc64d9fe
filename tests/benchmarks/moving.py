"""The cost of masks that move: one move against the steps between two, in one run on one machine.

    OMP_NUM_THREADS=1 python tests/benchmarks/moving.py --widening 4
    OMP_NUM_THREADS=1 python tests/benchmarks/moving.py --widening 4 --every 50 --json

A ResNet is pruned by connection sensitivity and trained on random images, step by step, with moves
in between; the median step and the median move of each rule are timed. `share` is what moves add to
the steps. Static masks may train compact, which moving ones may not: `compact` is the time of such
a step.
"""

import argparse
import copy
from statistics import median
from time import perf_counter
from typing import Any

import torch
from paper_networks import RESNET20, finish, network, options_of, show

import sculpt
from sculpt.compaction import compact_where_it_pays
from sculpt.config import Training
from sculpt.data import ImageSet
from sculpt.pruning.masks import Masks
from sculpt.training.trainer import Trainer

WARM_UP = 2


def main() -> None:
    """Measure, and print rows or JSON."""
    parser = options_of(__doc__)
    parser.add_argument("--widening", type=float, default=4.0)
    parser.add_argument("--budget", type=int, default=RESNET20)
    parser.add_argument("--every", type=int, default=100, help="steps between two moves")
    parser.add_argument("--steps", type=int, default=7, help="timed, and as many moves")
    options = parser.parse_args()
    model = network(family="resnet", widening=options.widening, blocks=3)
    sculpt.initialize(model, "ldi", seed=options.seed)
    images = torch.randint(0, 256, (512, 3, 32, 32), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(512) % 10, torch.full((3,), 0.5), torch.full((3,), 0.5))
    masks = sculpt.prune(model, options.budget, inputs=data.inputs(slice(64)))
    compaction, _ = compact_where_it_pays(copy.deepcopy(model), masks, data.inputs(slice(2)))
    compact = None
    if compaction:
        trainer = trainer_of(compaction.model, compaction.masks, data, "static", options)
        compact = median(timed_steps(trainer, WARM_UP + options.steps)[WARM_UP:])
    rows = []
    for rule in ("rigl", "set"):
        trainer = trainer_of(copy.deepcopy(model), masks, data, rule, options)
        rows.append(measure(rule, trainer, options) | {"compact": compact})
    finish(options, [show(row, options) for row in rows])


def trainer_of(
    model: torch.nn.Module, masks: Masks, data: ImageSet, rule: str, options: argparse.Namespace
) -> Trainer:
    """Make a trainer whose own moves never come: they are taken by hand."""
    recipe = Training.model_validate(
        {
            "recipe": "short",
            "precision": "float32",
            "moving": {"rule": rule, "every": 10**9},
        }
    )
    budget = None if rule == "static" else options.budget
    return Trainer(model, masks, data, recipe, "float32", options.seed, budget)


def timed_steps(trainer: Trainer, count: int) -> list[float]:
    """Time single steps."""
    trainer.model.train()
    seconds = []
    for number in range(count):
        batch = torch.arange(128) + 128 * (number % 4)
        start = perf_counter()
        trainer.step(batch)
        seconds.append(perf_counter() - start)
    return seconds


def measure(rule: str, trainer: Trainer, options: argparse.Namespace) -> dict[str, Any]:
    """Time steps and moves in turns."""
    timed_steps(trainer, WARM_UP)
    steps, moves = [], []
    for _ in range(options.steps):
        steps += timed_steps(trainer, 1)
        start = perf_counter()
        trainer._move()
        moves.append(perf_counter() - start)
    step, move = median(steps), median(moves)
    return {"rule": rule, "step": step, "move": move, "share": move / (options.every * step)}


if __name__ == "__main__":
    main()
