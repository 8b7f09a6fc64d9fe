"""How many images, and which precision, does connection sensitivity need?

    python tests/benchmarks/scoring_images.py --data DIR --widening 2 4 --images 45000
    python tests/benchmarks/scoring_images.py --data DIR --widening 8 --precision bfloat16 --json

DIR holds CIFAR-10 as train/<class>/*. ResNet(k, 3), LDI, uniform targets, batch norm `identity`,
269,034 parameters kept. One pass over the images in a random order adds up the gradients and
makes a mask at each sample size on the way, so that a smaller sample is part of every larger one.
Printed for each size: the share of the last mask (made from all images) that it already has, and
the share of the float32 mask of the first images that bfloat16 finds on the same images.

A script, not a test: it asserts nothing and pytest does not collect it. What it costs against a
training pass is measured by `criteria.py`.
"""

import argparse
from time import perf_counter
from typing import Any

import torch
from paper_networks import RESNET20, finish, network, options_of, show
from torch import Tensor, nn

from sculpt.data import ImageSet, make_splits
from sculpt.data.image_folder import ImageFolder
from sculpt.initializers import initialize
from sculpt.pruning.criteria.connection_sensitivity import make_loss, scoring_mode
from sculpt.pruning.masks import Masks, keep_highest, prunable_budget, prunable_parameters
from sculpt.pruning.task import PruningTask

SIZES = [500, 1000, 2000, 5000, 10_000, 20_000, 50_000]


def main() -> None:
    """Measure, and print rows or JSON."""
    parser = options_of(__doc__)
    parser.add_argument("--data", required=True, help="folder with train/<class>/*")
    parser.add_argument("--widening", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--images", type=int, default=None, help="all by default")
    parser.add_argument("--compare", type=int, default=1000, help="images for both precisions")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    options = parser.parse_args()
    images = make_splits(ImageFolder(root=options.data).read(), validation_fraction=0.0002).train
    # One fewer than all at most, because all would come in their own order, class by class.
    count = min(options.images or len(images), len(images) - 1)
    images = images.to(options.device).sample(count, seed=options.seed)
    rows = []
    for widening in options.widening:
        rows += [show(row, options) for row in measure(widening, images, options)]
    finish(options, rows)


def measure(widening: int, images: ImageSet, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row per sample size of one network."""
    model = network(options.device, widening=widening)
    initialize(model, "ldi", seed=options.seed)
    sizes = [size for size in SIZES if size < len(images)] + [len(images)]
    start = perf_counter()
    masks = nested_masks(model, images, sizes, options.precision)
    seconds = perf_counter() - start
    other = "float32" if options.precision == "bfloat16" else "bfloat16"
    short = [size for size in sizes if size <= options.compare]
    others = nested_masks(model, images, short, other)
    return [
        {
            "widening": widening,
            "seed": options.seed,
            "precision": options.precision,
            "images": size,
            "of_last_mask": overlap(masks[size], masks[sizes[-1]]),
            "of_other_precision": overlap(masks[size], others[size]) if size in others else None,
            "seconds": seconds * size / sizes[-1],
        }
        for size in sizes
    ]


def nested_masks(
    model: nn.Module, images: ImageSet, sizes: list[int], precision: str
) -> dict[int, Masks]:
    """Return the mask at each sample size, from one pass."""
    parameters = prunable_parameters(model)
    kept = prunable_budget(model, RESNET20, "paper")
    loss = make_loss(model, PruningTask(model, kept), "uniform")
    sums: list[Tensor] = [torch.zeros_like(parameter) for parameter in parameters.values()]
    masks = {}
    with (
        scoring_mode(model, "identity"),
        torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        for first, last in zip([0, *sizes], sizes, strict=False):
            for start in range(first, last, 125):
                inputs = images.inputs(slice(start, min(start + 125, last)))
                value = loss(inputs, model(inputs).float(), torch.empty(0))
                torch._foreach_add_(sums, torch.autograd.grad(value, list(parameters.values())))
            scores = {
                name: (total * parameter.detach()).abs()
                for (name, parameter), total in zip(parameters.items(), sums, strict=True)
            }
            masks[last] = keep_highest(scores, kept)
    return masks


def overlap(mask: Masks, other: Masks) -> float:
    """Return which share of the weights that `other` keeps `mask` keeps, too."""
    both = sum(int((mask[name] & other[name]).sum()) for name in mask)
    return both / sum(int(kept.sum()) for kept in other.values())


if __name__ == "__main__":
    main()
