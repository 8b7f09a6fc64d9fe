"""The repair of approximate isometry against the paper's, in one run on one machine.

    OMP_NUM_THREADS=1 python tests/benchmarks/repair.py --network resnet --widening 2
    OMP_NUM_THREADS=1 python tests/benchmarks/repair.py --network vgg16 --json

A network is drawn (LDI), pruned by connection sensitivity on random images, and repaired twice
from the same weights:

- ours: `sculpt.repair_isometry`, whole call, bounds and all; the median of `--repeats` calls.
- the paper's (Lee et al. 2020, §4.2 and its code): per layer 10,000 steps of SGD, learning rate
  0.1, on the un-squared ‖(C⊙W)(C⊙W)ᵀ − I‖_F. Its gradient is written out, which is cheaper than
  recording and replaying it. Only `--sgd-steps` are taken, in `--repeats` parts of equal length,
  and the median part is extrapolated linearly to 10,000 steps; `--full` takes all of them.

OS is the mean over layers of ‖(C⊙W)(C⊙W)ᵀ − I‖_F; its bound is the mean of the layers' bounds.
A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import copy
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch
from paper_networks import RESNET20, finish, network, options_of, show
from torch import Tensor, nn

import sculpt
from sculpt.diagnostics.orthogonality import layer_orthogonality, orthogonality_score
from sculpt.pruning.masks import Masks, count_kept, count_parameters

PAPER_STEPS = 10_000
PAPER_LEARNING_RATE = 0.1


def main() -> None:
    """Measure, and print a row or JSON."""
    parser = options_of(__doc__)
    parser.add_argument("--network", default="resnet", choices=["resnet", "vgg16"])
    parser.add_argument("--widening", type=float, default=None, help="2 for resnet, 1 for vgg16")
    parser.add_argument("--blocks", type=int, default=3, help="of a resnet's stage")
    parser.add_argument(
        "--budget", type=int, help=f"parameters kept: {RESNET20} for resnet, 10 %% for vgg16"
    )
    parser.add_argument("--method", default="frobenius", choices=["frobenius", "exact"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sgd-steps", type=int, default=200, help="a multiple of --repeats")
    parser.add_argument("--full", action="store_true", help="take all 10,000 steps of SGD")
    options = parser.parse_args()
    if options.widening is None:
        options.widening = 2.0 if options.network == "resnet" else 1.0
    model, masks = pruned_network(options)
    ours = measure_ours(model, masks, options.method, options.repeats)
    steps = PAPER_STEPS if options.full else options.sgd_steps
    paper = measure_paper(model, masks, steps, options.repeats)
    row = {
        "kept_parameters": count_kept(model, masks, "paper"),
        "dense_parameters": count_parameters(model, "paper"),
        "os_before": orthogonality_score(layer_orthogonality(model)),
        "ours": ours,
        "paper": paper,
        "ratio": paper["seconds_for_10000_steps"] / ours["seconds"],
    }
    finish(options, [show(row, options)])


def pruned_network(options: argparse.Namespace) -> tuple[nn.Module, Masks]:
    """Draw and prune the network that is to be repaired."""
    depth = {"blocks": options.blocks} if options.network == "resnet" else {}
    model = network(family=options.network, widening=options.widening, **depth)
    sculpt.initialize(model, "ldi", seed=options.seed)
    budget = options.budget
    if budget is None:
        tenth = count_parameters(model, "paper") // 10
        budget = RESNET20 if options.network == "resnet" else tenth
    generator = torch.Generator().manual_seed(options.seed)
    images = torch.randn(64, 3, 32, 32, generator=generator)
    masks = sculpt.prune(model, budget, criterion="connection_sensitivity", inputs=images)
    return model, masks


def measure_ours(model: nn.Module, masks: Masks, method: Any, repeats: int) -> dict[str, Any]:
    """Repair copies of the model; the last one's scores, the median time."""
    seconds = []
    for _ in range(repeats):
        repaired = copy.deepcopy(model)
        start = perf_counter()
        report = sculpt.repair_isometry(repaired, masks, method=method)
        seconds.append(perf_counter() - start)
    layers = layer_orthogonality(repaired)
    score, bound = orthogonality_score(layers), mean(layer.bound for layer in report.values())
    bound_0 = [
        layers[name] / len(masks[name]) ** 0.5 for name, layer in report.items() if layer.bound == 0
    ]
    return {
        "os_after": score,
        "os_bound": bound,
        "above_bound": score / bound - 1 if bound else None,
        "layers": len(report),
        "layers_with_bound_0": len(bound_0),
        "largest_residual_of_these_over_sqrt_rows": max(bound_0, default=None),
        "steps_of_all_layers": sum(layer.steps for layer in report.values()),
        "steps_at_most": max(layer.steps for layer in report.values()),
        "converged": sum(layer.converged for layer in report.values()),
        "constructed": [name for name, layer in report.items() if layer.constructed],
        "seconds": median(seconds),
        "seconds_each": seconds,
    }


@torch.no_grad()
def measure_paper(model: nn.Module, masks: Masks, steps: int, parts: int) -> dict[str, Any]:
    """Run the paper's repair on copies of the layers."""
    part = steps // parts
    weights = {
        name: parameter.detach().flatten(1).clone()
        for name, parameter in model.named_parameters()
        if name in masks and parameter.dim() > 1
    }
    seconds = []
    for _ in range(parts):
        start = perf_counter()
        for name, weight in weights.items():
            sgd(weight, masks[name].flatten(1).to(weight.dtype), part)
        seconds.append(perf_counter() - start)
    return {
        "steps_taken": part * parts,
        "os_after_them": mean(float(error(weight).norm()) for weight in weights.values()),
        "seconds_for_10000_steps": median(seconds) / part * PAPER_STEPS,
        "seconds_each": seconds,
    }


def sgd(weight: Tensor, mask: Tensor, steps: int) -> None:
    """Descend ‖(C⊙W)(C⊙W)ᵀ − I‖_F in place; its gradient is 2 E W / ‖E‖_F."""
    for _ in range(steps):
        deviation = error(weight)
        gradient = (deviation @ weight).mul_(mask)
        weight.sub_(gradient.mul_(2 * PAPER_LEARNING_RATE / deviation.norm()))


def error(weight: Tensor) -> Tensor:
    """Return W Wᵀ − I."""
    product = weight @ weight.T
    product.diagonal().sub_(1)
    return product


if __name__ == "__main__":
    main()
