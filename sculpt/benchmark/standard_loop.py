"""The opponent: masked training as a user would write it otherwise, in plain PyTorch.

Nothing in it is slower than it has to be in this style: float32, a `DataLoader` over images that
are opened with Pillow and transformed one by one, masks by `torch.nn.utils.prune`, and numbers
read after every step. It shares the network, the masks and the schedule's formula with sculpt's
own loop, so that speed and errors can be compared.
"""

import copy
import os
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, prune
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from sculpt.config import Training
from sculpt.data import ImageSet
from sculpt.pruning.masks import Masks
from sculpt.training.schedules import rate_factor

WORKERS_ON_CPU = 0
"""Loader processes would take the cores that the network is trained on."""

WORKERS_ON_CUDA = min(8, os.cpu_count() or 1)
"""There the cores are free, and one process cannot feed the device."""

EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class StandardEpoch:
    """What a pass over the training set gave. Losses in nats, errors as fractions."""

    train_loss: float
    train_error: float
    val_loss: float
    val_error: float
    images_per_second: float
    """Training alone, reading and transforming the images included."""


class PillowImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets hand them out: opened with Pillow, then transformed."""

    def __init__(self, images: ImageSet, transform: transforms.Compose) -> None:
        pixels = images.images.cpu().permute(0, 2, 3, 1)
        # Pillow wants grey images without an axis for the channel.
        self._pixels = np.ascontiguousarray(pixels.squeeze(-1).numpy())
        self._labels = images.labels.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), self._labels[index]


def train_standard(
    network: nn.Module,
    masks: Masks,
    train: ImageSet,
    validation: ImageSet,
    recipe: Training,
    *,
    device: torch.device | str = "cpu",
    order: Sampler[int] | None = None,
) -> list[StandardEpoch]:
    """Train a copy of a masked network, and evaluate it after every epoch.

    Args:
        network: With the weights to start from; it is left as it is.
        masks: Keyed by parameter name. Parameters of which nothing is pruned are left alone, as
            nobody would mask a dense layer.
        train: Trained on. Give fewer images to take fewer steps.
        validation: Evaluated on.
        recipe: Optimiser, schedule, augmentation and epochs. `precision`, `compact`, `protocol` and
            `weight_average` are not read.
        device: Where to train.
        order: Positions of the images, anew for each epoch; by default shuffled by torch's global
            generator, which also decides the augmentation.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True  # people do
    model = copy.deepcopy(network).to(device).to(memory_format=torch.contiguous_format)
    _mask(model, masks)

    workers = WORKERS_ON_CUDA if on_gpu else WORKERS_ON_CPU
    train_loader = DataLoader(
        PillowImages(train, _transform(train, recipe, augmented=True)),
        batch_size=min(recipe.batch_size, len(train)),
        shuffle=order is None,
        sampler=order,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
    )
    val_loader = DataLoader(
        PillowImages(validation, _transform(train, recipe, augmented=False)),
        batch_size=EVALUATION_BATCH,
        num_workers=workers,
        pin_memory=on_gpu,
    )
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
    steps = recipe.epochs * len(train_loader)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(recipe.schedule, step, steps))
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    history = []
    for _ in range(recipe.epochs):
        model.train()
        start = perf_counter()
        running_loss, correct, seen = 0.0, 0, 0
        for inputs, labels in train_loader:
            inputs = inputs.to(device, non_blocking=True)
            labels = labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            logits = model(inputs)
            loss = criterion(logits, labels)
            loss.backward()
            if recipe.max_gradient_norm is not None:
                clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
            optimizer.step()
            schedule.step()
            running_loss += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds = perf_counter() - start
        val_loss, val_error = _evaluate(model, val_loader, device)
        history.append(
            StandardEpoch(
                running_loss / seen, 1 - correct / seen, val_loss, val_error, seen / seconds
            )
        )
    return history


def _mask(model: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        if not mask.all():
            owner, _, parameter = name.rpartition(".")
            module = model.get_submodule(owner)
            kept = mask.to(getattr(module, parameter).device)
            prune.custom_from_mask(module, parameter, kept)


def _transform(images: ImageSet, recipe: Training, *, augmented: bool) -> transforms.Compose:
    height, width = images.images.shape[-2:]
    steps: list[object] = []
    if augmented and recipe.translate:
        steps.append(transforms.RandomCrop((height, width), padding=recipe.translate))
    if augmented and recipe.flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps.append(transforms.ToTensor())
    steps.append(transforms.Normalize(images.mean.tolist(), images.std.tolist()))
    if augmented and recipe.cutout:
        share = recipe.cutout**2 / (height * width)
        steps.append(transforms.RandomErasing(p=1, scale=(share, share), ratio=(1, 1)))
    return transforms.Compose(steps)


@torch.no_grad()
def _evaluate(
    model: nn.Module, loader: "DataLoader[tuple[Tensor, int]]", device: torch.device
) -> tuple[float, float]:
    """Return mean loss and error."""
    model.eval()
    loss, wrong, seen = 0.0, 0, 0
    for inputs, labels in loader:
        inputs, labels = inputs.to(device), labels.to(device)
        logits = model(inputs)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        wrong += (logits.argmax(1) != labels).sum().item()
        seen += len(labels)
    return loss / seen, wrong / seen
