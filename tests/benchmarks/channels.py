"""Channels removed by sculpt beside Torch-Pruning, at equal kept parameters, in one run.

    pip install --target torch-pruning --no-deps torch-pruning==1.6.1
    PYTHONPATH=torch-pruning OMP_NUM_THREADS=1 python tests/benchmarks/channels.py

Torch-Pruning is no dependency, and is installed beside the environment for this script alone. Each
of torchvision's networks is drawn once, and pruned

- by Torch-Pruning's `MagnitudePruner` with `global_pruning` and the classes ignored; the ratio is
  bisected until about `--share` of the parameters are kept. (Its `GroupNormPruner` removes the same
  channels of a network that is not trained: it differs in how it regularises training.)
- by `sculpt.prune` with granularity `channel`, to no more parameters than that. Channels are ranked
  by `--criterion` on random images, with each of the prices `--mac-exponent`.

All of them, and the dense network, are then folded and certified by `sculpt.compact`, so that no
difference is one of batch norms: `ms` is the median latency of one image, one pass of each network
in turn; `ms_unfolded` is that of the network as Torch-Pruning leaves it. Parameters are weights and
biases of convolutions and linear layers, of the network before it is folded; `stored` counts the
weights that the compact one has. MACs are dense ones. `narrowest` is the smallest share of its
channels that a convolution has left.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import copy
import warnings
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch_pruning
import torchvision
from torch import Tensor, nn

import sculpt
from sculpt.diagnostics.cost import measure_cost
from sculpt.errors import SculptWarning
from sculpt.pruning.masks import Masks, count_kept, count_parameters, dense_masks

RATIO_STEPS = 12


def main() -> None:
    """Measure, and print a row for each network and way to prune it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--share", type=float, default=0.3, help="of the parameters, kept")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--criterion", default="connection_sensitivity")
    parser.add_argument("--mac-exponent", nargs="+", type=float, default=[0.0, 0.5, 1.0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore", SculptWarning)  # what whole channels leave is printed
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, torch-pruning {version('torch-pruning')}, 1 thread, "
        f"{options.size}x{options.size}, criterion {options.criterion}"
    )
    for name in options.networks:
        measure(name, options)


def measure(name: str, options: argparse.Namespace) -> None:
    """Prune one network in every way, and print what each costs."""
    torch.manual_seed(options.seed)
    dense = getattr(torchvision.models, name)().eval()
    images = torch.randn(8, 3, options.size, options.size)
    target = round(options.share * count_parameters(dense, "paper"))
    start = perf_counter()
    theirs = by_torch_pruning(dense, images[:1], target)
    pruned: dict[str, tuple[nn.Module, Masks, float]] = {
        "dense": (dense, dense_masks(dense), 0.0),
        "Torch-Pruning": (theirs, dense_masks(theirs), (perf_counter() - start) / RATIO_STEPS),
    }
    budget = count_parameters(theirs, "paper")
    for price in options.mac_exponent:
        network, start = copy.deepcopy(dense), perf_counter()
        masks = sculpt.prune(
            network,
            budget,
            criterion=options.criterion,
            inputs=images,
            labels=torch.arange(len(images)),
            granularity="channel",
            mac_exponent=price,
        )
        pruned[f"sculpt, p = {price:g}"] = (network, masks, perf_counter() - start)

    small = {way: sculpt.compact(*found[:2], images[:1]) for way, found in pruned.items()}
    timed = dict(small) | {f"{way} unfolded": found[0] for way, found in pruned.items()}
    times = latencies(timed, images[:1], options.repeats)
    shape = tuple(images.shape[1:])
    row = "{:<10} {:<18} {:>10} {:>10} {:>7} {:>7} {:>11} {:>9} {:>8}"
    columns = ("kept", "stored", "GMACs", "ms", "ms_unfolded", "narrowest", "s_prune")
    print(row.format("network", "way", *columns))
    for way, (network, masks, seconds) in pruned.items():
        weights = [p for p in small[way].parameters() if p.dim() > 1]
        plain = f"{times[f'{way} unfolded']:.1f}" if way in ("dense", "Torch-Pruning") else ""
        figures = (
            f"{count_kept(network, masks, 'paper'):,}",
            f"{sum(p.numel() for p in weights):,}",
            f"{measure_cost(small[way], shape).dense_macs / 1e9:.3f}",
            f"{times[way]:.1f}",
            plain,
            f"{narrowest(dense, network, masks):.3f}",
            f"{seconds:.1f}",
        )
        print(row.format(name, way, *figures), flush=True)


def by_torch_pruning(dense: nn.Module, image: Tensor, target: int) -> nn.Module:
    """Prune to about `target` parameters: the network nearest to it of all ratios tried."""
    low, high, best = 0.0, 1.0, dense
    for _ in range(RATIO_STEPS):
        ratio = (low + high) / 2
        network = copy.deepcopy(dense)
        torch_pruning.pruner.MagnitudePruner(
            network,
            image,
            importance=torch_pruning.importance.MagnitudeImportance(),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[network.fc],
        ).step()
        kept = count_parameters(network, "paper")
        low, high = (ratio, high) if kept > target else (low, ratio)
        if abs(kept - target) < abs(count_parameters(best, "paper") - target):
            best = network
    return best


def narrowest(dense: nn.Module, network: nn.Module, masks: Masks) -> float:
    """Return the smallest share of its outputs that a layer has left."""
    before = {name: len(p) for name, p in dense.named_parameters() if p.dim() > 1}
    return min(int(masks[name].flatten(1).any(1).sum()) / before[name] for name in before)


@torch.inference_mode()
def latencies(
    networks: dict[str, Callable[..., Any]], image: Tensor, count: int
) -> dict[str, float]:
    """Return the median milliseconds of each network, one pass of each in turn."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(count + 2):
        for name, network in networks.items():
            start = perf_counter()
            network(image)
            if turn > 1:
                times[name].append(1000 * (perf_counter() - start))
    return {name: median(found) for name, found in times.items()}


if __name__ == "__main__":
    main()
