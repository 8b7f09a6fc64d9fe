"""Does sculpt's loop train to the errors of a plain one? Both from the same networks, n seeds.

    python tests/benchmarks/errors_agree.py --data digits --images 1797 --epochs 10
    python tests/benchmarks/errors_agree.py --data cifar10 --data-root DIR --widening 2 --seeds 5

A ResNet(k, n) is drawn (LDI), pruned to the size of ResNet(1, n) by connection sensitivity
(k = 1: left dense), repaired, and trained by `sculpt.training.loop.train` and by
`sculpt/benchmark/standard_loop.py`, from the same weights with the same masks and recipe. Order
and augmentation are drawn anew by each. Printed are final validation errors, mean ± standard
deviation over the seeds, and Student's 95 % interval of the paired difference ours − theirs.

DIR is a folder train/<class>/*, test/<class>/* or one in torchvision's layout.

A script, not a test: it asserts nothing and pytest does not collect it.
"""

import argparse
import copy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from paper_networks import finish, network, options_of, show
from torch import nn

import sculpt
from sculpt.benchmark.race import as_trained
from sculpt.benchmark.standard_loop import train_standard
from sculpt.config import Training
from sculpt.data import Splits, make_splits
from sculpt.pruning.masks import Masks, count_parameters, dense_masks
from sculpt.registry import DATASETS
from sculpt.results.statistics import compare_paired
from sculpt.training.loop import train
from sculpt.training.loss_and_error import evaluate


def main() -> None:
    """Train, and print both errors or JSON."""
    options = parse()
    splits = load(options).to(options.device)
    recipe = Training(
        epochs=options.epochs,
        evaluate_every=options.epochs,
        batch_size=options.batch,
        learning_rate=options.learning_rate,
        schedule="one_cycle",
        flip=options.data == "cifar10",
        translate=4 if options.data == "cifar10" else 1,
        precision=options.precision,
    )
    ours, theirs = [], []
    for seed in range(options.seeds):
        model, masks = sparse_network(splits, options, seed)
        torch.manual_seed(seed)
        standard, _ = train_standard(model, masks, splits.train, recipe, device=options.device)
        theirs.append(evaluate(standard, splits.validation)[1])
        trained, kept = as_trained(copy.deepcopy(model), masks, splits, recipe)
        ours.append(train(trained, kept, splits, recipe, seed=seed).history[-1].val_error)
        show({"seed": seed, "sculpt": ours[-1], "standard": theirs[-1]}, options)
    agreement = compare_paired(ours, theirs)
    assert agreement, "give at least 2 --seeds"
    row = {
        "validation_images": len(splits.validation),
        "sculpt": describe(ours),
        "standard": describe(theirs),
        "difference": mean(ours) - mean(theirs),
        "interval": [agreement.low, agreement.high],
    }
    finish(options, [show(row, options)])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = options_of(__doc__)
    parser.add_argument("--data", default="mnist", choices=["digits", "mnist", "cifar10"])
    parser.add_argument("--data-root", default="")
    parser.add_argument("--images", type=int, default=5000, help="validation images included")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--precision", default="float32", help="of sculpt's loop")
    parser.add_argument("--widening", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    return parser.parse_args()


def load(options: argparse.Namespace) -> Splits:
    """Read the images, a fifth of which is held out."""
    name, known = options.data, {}
    if name != "digits":
        known["root"] = options.data_root
        if Path(options.data_root, "train").is_dir():
            name, known["channels"] = "image_folder", 3 if name == "cifar10" else 1
    arrays = DATASETS.get(name)(**known).read()
    count = min(options.images, len(arrays.train_labels))
    return make_splits(arrays, validation_fraction=0.2, train_images=count)


def sparse_network(
    splits: Splits, options: argparse.Namespace, seed: int
) -> tuple[nn.Module, Masks]:
    """Draw, prune and repair a network; at widening 1 only draw it."""

    def build(widening: int) -> nn.Module:
        spec = splits.spec
        return network(
            options.device,
            channels=spec.channels,
            classes=spec.classes,
            pixels=spec.height * spec.width,
            widening=widening,
            blocks=options.blocks,
        )

    model = build(options.widening)
    sculpt.initialize(model, "ldi", seed=seed)
    if options.widening == 1:
        return model, dense_masks(model)
    masks = sculpt.prune(
        model,
        count_parameters(build(1), "paper"),
        criterion="connection_sensitivity",
        targets="uniform",
        batch_norm="batch",
        inputs=splits.train.sample(500, seed=seed).inputs(),
    )
    sculpt.repair_isometry(model, masks)
    return model, masks


def describe(errors: list[float]) -> dict[str, Any]:
    """Return mean, spread and values."""
    return {"mean": mean(errors), "std": stdev(errors), "n": len(errors), "each": errors}


if __name__ == "__main__":
    main()
