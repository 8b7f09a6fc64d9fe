"""What scoring costs: every criterion against plain forward and backward passes, in one run.

    python tests/benchmarks/criteria.py                                   # ResNet20, 200 images
    python tests/benchmarks/criteria.py --widening 4 --criteria connection_sensitivity npb
    python tests/benchmarks/criteria.py --device cuda --images 2000 --json
    python tests/benchmarks/criteria.py --criteria connection_sensitivity --precision bfloat16

The yardstick is one pass over the images, forward and backward, with cross-entropy to the labels
and gradients for all weights: what a training step costs without the optimiser. Criterion and
yardstick take turns, and medians of `--repeats` turns are compared. `ratio` is the criterion's
time in passes: connection sensitivity needs about one. Criteria that look at no images are
compared with the same pass. Masks are made too, and their effective nodes and paths shown.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from paper_networks import finish, network, options_of, show, wait
from torch import Tensor, nn

import sculpt
from sculpt.diagnostics.topology import measure_topology
from sculpt.pruning.masks import count_parameters
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA


def main() -> None:
    """Measure, and print rows or JSON."""
    parser = options_of(__doc__)
    parser.add_argument("--network", default="resnet", choices=["resnet", "vgg16", "mlp"])
    parser.add_argument("--widening", type=float, default=1)
    parser.add_argument("--size", type=int, default=32, help="pixels along an image")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--criteria", nargs="*", help="by default all that need no file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    wide = {"widening": options.widening} if options.network != "mlp" else {}
    model = network(options.device, options.network, pixels=options.size**2, **wide)
    sculpt.initialize(model, "ldi", seed=options.seed)
    images = torch.randn(options.images, 3, options.size, options.size, device=options.device)
    labels = torch.randint(0, 10, (options.images,), device=options.device)
    split = partial(images.split, options.batch_size)
    # A trained network's mask takes no computing.
    names = options.criteria or [name for name in CRITERIA.names() if name != "from_bundle"]
    rows = [show(measure(name, model, split, labels, options), options) for name in names]
    finish(options, rows)


def measure(
    name: str, model: nn.Module, split: Any, labels: Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Time one criterion and the yardstick by turns, and look at the mask."""
    shape = (3, options.size, options.size)
    kept = round(options.density * count_parameters(model, "paper"))
    label_batches = labels.split(options.batch_size)
    task = PruningTask(
        model,
        kept,
        lambda: zip(split(), label_batches, strict=True),
        torch.Generator().manual_seed(options.seed),
        shape,
    )
    # The others compute in one precision only.
    settings = {"precision": options.precision} if name == "connection_sensitivity" else {}
    seconds: dict[str, list[float]] = {"criterion": [], "pass": []}
    for _ in range(options.repeats):
        seconds["pass"].append(
            timed(lambda: plain_pass(model, split(), label_batches, options), options)
        )
        scores: dict[str, Tensor] = {}
        seconds["criterion"].append(
            timed(
                lambda into=scores: into.update(CRITERIA.get(name)(model, task, **settings)),
                options,
            )
        )
    topology = measure_topology(model, task.select(scores), shape)
    both = {what: median(times) for what, times in seconds.items()}
    return {
        "criterion": name,
        "seconds": both["criterion"],
        "seconds_of_a_pass": both["pass"],
        "ratio": both["criterion"] / both["pass"],
        "images_per_second": options.images / both["criterion"],
        "effective_nodes": topology.nodes,
        "effective_parameters": topology.parameters,
        "kept": kept,
        "log10_paths": topology.log10_paths,
    }


def timed(action: Any, options: argparse.Namespace) -> float:
    """Time an action until its device is idle, in seconds."""
    start = perf_counter()
    action()
    wait(options.device)
    return perf_counter() - start


def plain_pass(model: nn.Module, batches: Any, labels: Any, options: argparse.Namespace) -> None:
    """Go forward and backward through all images once."""
    model.eval()
    parameters = list(model.parameters())
    for inputs, targets in zip(batches, labels, strict=True):
        enabled = options.precision == "bfloat16"
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=enabled):
            logits = model(inputs)
        torch.autograd.grad(F.cross_entropy(logits.float(), targets), parameters)


if __name__ == "__main__":
    main()
