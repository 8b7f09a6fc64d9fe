"""How many trials at a time make the most of a device: training processes side by side.

    python tests/benchmarks/trials_per_device.py --counts 1 2 --widening 1          # on a CPU
    python tests/benchmarks/trials_per_device.py --device cuda --widening 1 2 4 8

The networks, recipe and images of `training.py`: ResNet(k, 3), k = 1 dense, the others pruned to
269,034 parameters and compacted. What `sculpt run --trials-per-device auto` does for a study is
done for each number of processes that is asked for, whether it still gains something or not: each
trains a network of its own by sculpt's loop, warm, all for the same seconds. Images per second are
those of all processes together; `relative` is over the first number. `memory_bytes` is what all of
them take of the device, with CUDA's own share.

The processes take turns on the device, unless NVIDIA's MPS runs: to compare, run this before and
after `nvidia-cuda-mps-control -d`. The script only says whether CUDA_MPS_PIPE_DIRECTORY is set.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import os
from functools import partial
from typing import Any

from paper_networks import finish, load, show, sparse_network, training_options
from torch import nn

from sculpt.benchmark.race import as_trained
from sculpt.config import Training
from sculpt.data import Splits
from sculpt.pruning.masks import Masks
from sculpt.search.workers.concurrency import train_together

MPS = "CUDA_MPS_PIPE_DIRECTORY"


def main() -> None:
    """Measure, and print rows or JSON."""
    parser = training_options(__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8], help="of processes")
    options = parser.parse_args()
    splits = load(options.data_root).to(options.device)
    recipe = Training(
        epochs=1, batch_size=options.batch, flip=True, translate=4, precision=options.precision
    )
    rows: list[dict[str, Any]] = []
    for widening in options.widening:
        alone = None
        for count in options.counts:
            network = partial(pruned, widening, options.seed, recipe)
            together = train_together(count, recipe, splits, network)
            row: dict[str, Any] = {"widening": widening, "count": count, "fits": False}
            if together is not None:
                alone = alone or together.rate
                row |= {
                    "fits": True,
                    "images_per_second": together.rate,
                    "relative": together.rate / alone,
                    "memory_bytes": together.memory_bytes,
                }
            rows.append(show(row, options))
    finish(options, rows, processors=os.cpu_count(), mps=MPS in os.environ)


def pruned(widening: int, seed: int, recipe: Training, splits: Splits) -> tuple[nn.Module, Masks]:
    """Make a network as it is trained, in the process that trains it."""
    model, masks = sparse_network(widening, splits, seed)
    return as_trained(model, masks, splits, recipe)


if __name__ == "__main__":
    main()
