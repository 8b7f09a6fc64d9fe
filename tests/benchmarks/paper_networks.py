"""The paper's networks on CIFAR images, and the options and output of scripts that measure them."""

import argparse
import json
import platform
from typing import Any

import torch
import yaml
from torch import nn

import sculpt
from sculpt.data import ImageArrays, Splits, make_splits
from sculpt.data.image_folder import ImageFolder
from sculpt.models import build_network
from sculpt.pruning.masks import Masks, dense_masks

RESNET20 = 269_034
"""Parameters under the counting rule `paper`; the budget of every ResNet."""
INPUT_SHAPE = (3, 32, 32)
SCORED = 256
RANDOM_IMAGES = 20_000


def options_of(document: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options that all scripts have."""
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


def training_options(document: str | None) -> argparse.ArgumentParser:
    """Make a parser of the options of scripts that train the networks."""
    parser = options_of(document)
    parser.add_argument("--widening", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--precision", default="auto", help="of sculpt's loop")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data-root", help="CIFAR-10 as folders of images; random without it")
    return parser


def show(row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Print a row unless JSON is printed at the end; return it."""
    if not options.json:
        text = yaml.safe_dump(_rounded(row), sort_keys=False, default_flow_style=None, width=200)
        print(text, end="", flush=True)
    return row


def finish(options: argparse.Namespace, rows: list[dict[str, Any]], **more: Any) -> None:
    """Print the machine, or everything as JSON."""
    on_gpu = str(options.device).startswith("cuda")
    machine = {
        "device": torch.cuda.get_device_name(options.device) if on_gpu else "cpu",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        **more,
    }
    if options.json:
        document = {"options": vars(options), "machine": machine, "rows": rows}
        print(json.dumps(document, indent=2, default=str))
    else:
        show(machine, options)


def wait(device: torch.device | str) -> None:
    """Wait until a device is idle."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def load(root: str | None) -> Splits:
    """Read CIFAR-10, or draw images of its shape."""
    if root:
        return make_splits(ImageFolder(root=root).read())
    generator = torch.Generator().manual_seed(0)
    shape = (RANDOM_IMAGES, *INPUT_SHAPE)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.arange(RANDOM_IMAGES) % 10
    names = tuple(map(str, range(10)))
    return make_splits(ImageArrays(images, labels, images[:100], labels[:100], names))


def network(
    device: torch.device | str = "cpu", family: str = "resnet", **options: Any
) -> nn.Module:
    """Build a network for CIFAR images, channels last; ResNet(k, 3) by default."""
    options = {"channels": 3, "classes": 10, "pixels": 32 * 32} | options
    if family == "resnet":
        options = {"blocks": 3} | options
    model = build_network(family, **options).to(device)
    return model.to(memory_format=torch.channels_last)


def sparse_network(widening: int, splits: Splits, seed: int) -> tuple[nn.Module, Masks]:
    """Draw ResNet(k, 3); leave it dense at k = 1, else prune it to the size of that one."""
    model = network(splits.train.device, widening=widening)
    sculpt.initialize(model, "ldi", seed=seed)
    if widening == 1:
        return model, dense_masks(model)
    masks = sculpt.prune(
        model,
        RESNET20,
        criterion="connection_sensitivity",
        targets="uniform",
        batch_norm="identity",
        inputs=splits.train.sample(SCORED, seed=seed).inputs(),
        batch_size=64,
    )
    return model, masks


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
