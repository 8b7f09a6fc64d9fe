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
import json
import platform
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

import sculpt
from sculpt.benchmark.race import Effort, Opponent, race, standard_opponent
from sculpt.config import Training
from sculpt.data import ImageArrays, Splits, make_splits
from sculpt.data.image_folder import ImageFolder
from sculpt.diagnostics.cost import measure_cost
from sculpt.models import build_network
from sculpt.pruning.masks import Masks, count_kept, count_parameters, dense_masks

RESNET20 = 269_034
"""Parameters under the counting rule `paper`; the budget of every network."""

INPUT_SHAPE = (3, 32, 32)
SCORED = 256
RANDOM_IMAGES = 20_000


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = parse(__doc__)
    parser.add_argument("--steps", type=int, default=20, help="of a measured epoch")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    splits = load(options.data_root).to(device)
    # Epochs enough that on CUDA a step is captured, as in a trial.
    recipe = Training(
        epochs=30, batch_size=options.batch, flip=True, translate=4, precision=options.precision
    )
    rows = []
    with standard_opponent() as opponent:
        for widening in options.widening:
            rows.append(measure(widening, splits, recipe, opponent, options))
            if not options.json:
                print(as_text(rows[-1]), flush=True)
    finish(options, device, rows)


def parse(document: str) -> argparse.ArgumentParser:
    """Return a parser of the options that scripts on these networks have in common."""
    parser = argparse.ArgumentParser(
        description=document, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widening", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", help="of sculpt's loop")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data-root", help="CIFAR-10 as folders of images; random without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser


def finish(
    options: argparse.Namespace, device: torch.device, rows: list[dict[str, Any]], **more: Any
) -> None:
    """Print what was measured where: all of it as JSON, or the machine alone, below its rows."""
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        **more,
    }
    if options.json:
        print(json.dumps({"options": vars(options), "machine": machine, "rows": rows}, indent=2))
    else:
        print(", ".join(f"{key} {value}" for key, value in machine.items()))


def load(root: str | None) -> Splits:
    """Read CIFAR-10, or draw images of its shape."""
    if root:
        return make_splits(ImageFolder(root=root).read())
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (RANDOM_IMAGES, *INPUT_SHAPE), generator=generator, dtype=torch.uint8
    )
    labels = torch.arange(RANDOM_IMAGES) % 10
    names = tuple(map(str, range(10)))
    return make_splits(ImageArrays(images, labels, images[:100], labels[:100], names))


def sparse_network(widening: int, splits: Splits, seed: int) -> tuple[nn.Module, Masks]:
    """Draw a network; leave it dense at widening 1, else prune it to the size of that one."""
    model = build_network(
        "resnet", channels=3, classes=10, pixels=32 * 32, widening=widening, blocks=3
    )
    model = model.to(splits.train.device).to(memory_format=torch.channels_last)
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


def measure(
    widening: int,
    splits: Splits,
    recipe: Training,
    opponent: Opponent,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Return one row of the table."""
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
    """Return FLOP/s of a bfloat16 matrix product: the median after one to warm up."""
    size = 8192 if device.type == "cuda" else 2048
    matrix = torch.randn(size, size, device=device).bfloat16()
    seconds = []
    for _ in range(repeats + 1):
        start = perf_counter()
        matrix @ matrix
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(perf_counter() - start)
    return 2 * size**3 / median(seconds[1:])


def as_text(row: dict[str, Any]) -> str:
    """Lay one row out for reading."""
    kept, dense = row["kept_parameters"], row["dense_parameters"]
    return (
        f"k {row['widening']}  {1 - kept / dense:7.2%} sparse  sculpt {row['sculpt']:9,.0f} "
        f"images/s  standard {row['standard']:9,.0f}  ratio {row['ratio']:5.2f}  "
        f"effective {row['effective_gflops']:8,.0f} GFLOP/s  trained "
        f"{row['trained_gflops']:8,.0f}  matmul {row['matmul_gflops']:8,.0f}  "
        f"share {row['share']:6.1%}"
    )


if __name__ == "__main__":
    main()
