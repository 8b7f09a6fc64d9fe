"""Masked training as a user would write it in plain PyTorch, to compare sculpt's loop with.

No part of it is needlessly slow in this style: float32, a `DataLoader` over images opened with
Pillow and transformed one by one, masks by `torch.nn.utils.prune`, and the loss read after every
step. Network, masks and the schedule's formula are sculpt's, so that speed and errors compare.
"""

import copy
import os
from time import perf_counter

import numpy as np
import torch
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
from sculpt.training.trainer import SECOND_BETA

WORKERS_ON_CPU = 0
"""Loader processes would take the cores that train the network."""

WORKERS_ON_CUDA = min(8, os.cpu_count() or 1)
"""The cores are free, and one process cannot feed the device."""


class PillowImages(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's data sets return them: opened with Pillow, then transformed."""

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
    images: ImageSet,
    recipe: Training,
    *,
    device: torch.device | str = "cpu",
    order: Sampler[int] | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train a copy of a masked network.

    Args:
        network: With the weights to start from; it is not changed.
        masks: Keyed by parameter name. Parameters that keep all weights are not masked, as nobody
            would mask a dense layer.
        images: Trained on. Give fewer images to take fewer steps.
        recipe: Optimiser, schedule, augmentation and epochs. `precision`, `compact`, `protocol`,
            `weight_average`, `moving`, `mixup` and `cutmix` are not read.
        device: Where to train.
        order: Positions of the images, anew for each epoch; by default shuffled by torch's global
            generator, which also decides the augmentation.

    Returns:
        The trained copy, and the images per second of each epoch, reading and transforming the
        images included.
    """
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True  # people do
    model = copy.deepcopy(network).to(device).to(memory_format=torch.contiguous_format)
    _mask(model, masks)

    workers = WORKERS_ON_CUDA if on_gpu else WORKERS_ON_CPU
    loader = DataLoader(
        PillowImages(images, _transform(images, recipe)),
        batch_size=min(recipe.batch_size, len(images)),
        shuffle=order is None,
        sampler=order,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=on_gpu,
    )
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "adamw":
        betas = (recipe.momentum, SECOND_BETA)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=decay,
        )
    steps = recipe.epochs * len(loader)
    schedule = LambdaLR(
        optimizer, lambda step: rate_factor(recipe.schedule, step, steps, recipe.warm_up)
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)

    rates = []
    for _ in range(recipe.epochs):
        model.train()
        start = perf_counter()
        running_loss, correct, seen = 0.0, 0, 0
        for inputs, labels in loader:
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
        rates.append(seen / (perf_counter() - start))
    return model, rates


def _mask(model: nn.Module, masks: Masks) -> None:
    for name, mask in masks.items():
        if not mask.all():
            owner, _, parameter = name.rpartition(".")
            module = model.get_submodule(owner)
            kept = mask.to(getattr(module, parameter).device)
            prune.custom_from_mask(module, parameter, kept)


def _transform(images: ImageSet, recipe: Training) -> transforms.Compose:
    height, width = images.images.shape[-2:]
    steps: list[object] = []
    if recipe.translate:
        steps.append(transforms.RandomCrop((height, width), padding=recipe.translate))
    if recipe.flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps.append(transforms.ToTensor())
    steps.append(transforms.Normalize(images.mean.tolist(), images.std.tolist()))
    if recipe.cutout:
        share = recipe.cutout**2 / (height * width)
        steps.append(transforms.RandomErasing(p=1, scale=(share, share), ratio=(1, 1)))
    return transforms.Compose(steps)
