"""The authors' own code, run on known weights and images, must have kept what we keep.

See `shared/reference/README.md` for what was run and how it was stored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import count
from torch import Tensor, nn

from sculpt.models.resnet import resnet
from sculpt.pruning.criteria.connection_sensitivity import connection_sensitivity
from sculpt.pruning.masks import Masks, count_parameters, keep_highest
from sculpt.pruning.task import PruningTask
from sculpt.registry import DATASETS

BATCH_SIZE = 100  # of the authors' run; their batches are summed


def standardise(images: Tensor) -> Tensor:
    """Normalise by two scalars over all pixels, as the reference was made."""
    pixels = images.numpy().astype(np.float64) / 255
    return torch.from_numpy((pixels - pixels.mean()) / pixels.std()).float()


def load_reference(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Set the model to the stored weights; return the stored masks, by parameter name."""
    masks = {}
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with np.load(path) as stored, torch.no_grad():
        assert len(layers) == sum(key.startswith("weight.") for key in stored)
        for number, (name, layer) in enumerate(layers, start=1):
            weight = torch.from_numpy(stored[f"weight.{number:02}"])
            assert weight.shape == layer.weight.shape, name
            layer.weight.copy_(weight)
            layer.bias.zero_()
            bits = np.unpackbits(stored[f"mask.{number:02}"])[: weight.numel()]
            masks[f"{name}.weight"] = torch.from_numpy(bits.astype(bool)).view(weight.shape)
            masks[f"{name}.bias"] = torch.zeros_like(layer.bias, dtype=torch.bool)
    return masks


def prune(model: nn.Module, images: Tensor, labels: Tensor, kept: int, **options: Any) -> Masks:
    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        return zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True)

    scores = connection_sensitivity(model, PruningTask(model, kept, batches), **options)
    return keep_highest(scores, kept)


def agreement(ours: Masks, theirs: Masks) -> float:
    """Return the share of what they keep that we keep too; the two keep equally many."""
    assert ours.keys() == theirs.keys()
    assert count(ours) == count(theirs)
    return count({name: ours[name] & theirs[name] for name in theirs}) / count(theirs)


def mlp7() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in [784] + 5 * [100]:
        layers += [nn.Linear(inputs, 100), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


def tensorflow_resnet32(padding: Literal["same", "symmetric"]) -> nn.Module:
    """Ours, with TensorFlow's batch-norm epsilon and, if asked for, its `SAME` padding."""
    model = resnet(3, 10, blocks=5)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-3
        elif padding == "same" and isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            layer.padding = (0, 0)
            # Bottom and right only: with stride 2 and an even size that is all there is to pad.
            layer.register_forward_pre_hook(lambda _, inputs: F.pad(inputs[0], (0, 1, 0, 1)))
    return model


def test_the_mlps_mask_is_the_authors(mnist_root, reference_masks):
    arrays = DATASETS.get("mnist")(root=str(mnist_root)).read()
    images, labels = arrays.train_images[:2000], arrays.train_labels[:2000]
    model = mlp7()
    theirs = load_reference(reference_masks / "mlp7_tanh_gt.npz", model)
    assert count_parameters(model, "paper") == golden.REFERENCE_MLP["parameters"]
    assert count(theirs) == golden.REFERENCE_MLP["kept"]
    ours = prune(model, standardise(images), labels, count(theirs), targets="gt")
    assert agreement(ours, theirs) == 1


@pytest.fixture(scope="module")
def cifar10_images(cifar10_folder):
    """Every 100th training image in ImageFolder's order, standardised."""
    arrays = DATASETS.get("image_folder")(root=str(cifar10_folder)).read()
    return standardise(arrays.train_images[::100])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding", "batch_norm", "expected", "tolerance"),
    [
        ("same", "identity", 1, 1 - golden.REFERENCE_RESNET32_AGREEMENT),
        ("symmetric", "identity", golden.REFERENCE_RESNET32_AGREEMENT_SYMMETRIC_PADDING, 1e-3),
        ("same", "batch", golden.REFERENCE_RESNET32_AGREEMENT_TRAINING_MODE, 1e-2),
    ],
)
def test_resnet32s_mask_is_the_authors_as_far_as_was_measured(
    cifar10_images, reference_masks, padding, batch_norm, expected, tolerance
):
    model = tensorflow_resnet32(padding)
    theirs = load_reference(reference_masks / "resnet32_uniform.npz", model)
    assert count_parameters(model, "paper") == golden.REFERENCE_RESNET32["parameters"]
    assert count(theirs) == golden.REFERENCE_RESNET32["kept"]
    no_labels = torch.full((len(cifar10_images),), -1)
    options = {"targets": "uniform", "batch_norm": batch_norm}
    ours = prune(model, cifar10_images, no_labels, count(theirs), **options)
    assert agreement(ours, theirs) == pytest.approx(expected, abs=tolerance)
