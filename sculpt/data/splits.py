"""Division of a data set into training, validation and test images, and its fingerprint."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sculpt.data.images import ImageArrays, ImageSet, Spec
from sculpt.data.task import CLASSIFICATION, Task
from sculpt.errors import DataError
from sculpt.seeding import derive_seed


@dataclass(frozen=True, eq=False)
class Splits:
    """The three disjoint sets of a study, on one device.

    Args:
        train: For fitting weights. Its mean and std normalise all three sets.
        validation: For choosing networks.
        test: For measuring the chosen network, once.
        spec: Shape of the images and number of classes, or the like.
        fingerprint: 16 hexadecimal digits that change with any pixel, any label and any membership.
        class_names: One name per class, in the order of the labels; empty where they are not known.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    spec: Spec
    fingerprint: str
    class_names: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "Splits":
        """Copy the splits to `device`."""
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def make_splits(
    arrays: ImageArrays,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_images: int | None = None,
    task: Task = CLASSIFICATION,
) -> Splits:
    """Divide a data set, class by class, into training, validation and test images.

    Without classes it is divided at random.

    Args:
        arrays: The data set as read. Its test images stay the test images.
        validation_fraction: Share of the training images held out to choose networks by.
        seed: Decides which images are held out, and which are in the subset.
        train_images: Use only this many of the training images (before validation images are held
            held out), to make a study quicker. None for all.
        task: What networks learn from them.

    Raises:
        DataError: a number is out of range, a split or a class of the training split would
            be empty, a channel of images is constant, or the targets are none of the task.
        InputError: a loss or metric of somebody's own does not take the targets.
    """
    if not 0 < validation_fraction < 1:
        raise DataError(
            "validation_fraction must lie strictly between 0 and 1, but got "
            f"{validation_fraction}; 0.1 is the paper's"
        )
    _check_task(task, arrays)
    total, classes = len(arrays.train_labels), class_labels(arrays.train_labels)
    if train_images is not None and not 1 <= train_images <= total:
        raise DataError(
            f"train_images must lie between 1 and {total}, the size of the training set, but got "
            f"{train_images}; change it, or leave it out to use them all"
        )
    used = torch.arange(total)
    if train_images is not None:
        used, _ = stratified_choice(classes, train_images, derive_seed(seed, "training subset"))
    held_out, fitted = stratified_choice(
        classes[used],
        round(validation_fraction * len(used)),
        derive_seed(seed, "validation split"),
    )
    _check_sizes(arrays, used, used[fitted], used[held_out])

    mean, std = _channel_statistics(arrays.train_images[used[fitted]])
    splits = Splits(
        train=_take(arrays, used[fitted], mean, std, task),
        validation=_take(arrays, used[held_out], mean, std, task),
        test=ImageSet(arrays.test_images, arrays.test_labels, mean, std, task),
        spec=arrays.spec,
        fingerprint="",
        class_names=arrays.class_names,
    )
    return replace(splits, fingerprint=_fingerprint(splits))


def check_targets(task: Task, spec: Spec) -> None:
    """Refuse a kind of targets that a task cannot learn.

    Raises:
        DataError: they are of another kind.
    """
    kind = spec.targets
    if task.targets not in (None, kind):
        forms = {"classes": "int64 (N,), the index of a class", "numbers": "floats (N,) or (N, K)"}
        raise DataError(
            f"targets must be {task.targets} ({forms[str(task.targets)]}) for the loss {task.loss} "
            f"with the metric {task.metric}, but those of the data are {kind} ({forms[kind]}); "
            "convert them, or change task.loss"
        )


def _check_task(task: Task, arrays: ImageArrays) -> None:
    """Refuse targets outside of a task's range, and functions that do not take them."""
    check_targets(task, arrays.spec)
    task.try_out(arrays.train_labels, arrays.spec.outputs)
    if task.loss == "bce":
        labels = torch.cat([arrays.train_labels, arrays.test_labels])
        if len(labels) and not (labels.min() >= 0 and labels.max() <= 1):
            raise DataError(
                "targets must be probabilities from 0 to 1 for the loss bce, but they span "
                f"{float(labels.min()):g}..{float(labels.max()):g}; scale them, or use mse"
            )


def class_labels(labels: Tensor) -> Tensor:
    """Return class labels; without any, all are of one."""
    return labels if labels.dtype == torch.int64 else labels.new_zeros(len(labels)).long()


def stratified_choice(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose `count` of N positions at random so that classes keep their proportions.

    Each class gives its exact share, rounded down or up. The larger remainders round up, ties
    are broken at random, so that no class is favoured for its number.

    Returns:
        The chosen positions, and all others; both int64 and ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.bincount(labels)
    # In integers, so that equal remainders are exactly equal.
    quotas = sizes * count // max(len(labels), 1)
    remainders = sizes * count % max(len(labels), 1)
    shuffled = torch.randperm(len(sizes), generator=generator)
    by_remainder = shuffled[remainders[shuffled].argsort(descending=True, stable=True)]
    quotas[by_remainder[: count - int(quotas.sum())]] += 1

    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, quota in enumerate(quotas.tolist()):
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[:quota]]] = True
    return chosen.nonzero().flatten(), (~chosen).nonzero().flatten()


def _check_sizes(arrays: ImageArrays, used: Tensor, fitted: Tensor, held_out: Tensor) -> None:
    sizes = {"train": len(fitted), "validation": len(held_out), "test": len(arrays.test_labels)}
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise DataError(
            f"every split must hold images, but {' and '.join(empty)} would be empty with "
            f"{len(used)} training and {sizes['test']} test images; use more images or another "
            "validation_fraction"
        )
    if arrays.spec.targets == "numbers":
        return
    expected = set(arrays.train_labels.unique().tolist())
    lost = sorted(expected - set(arrays.train_labels[fitted].unique().tolist()))
    if lost:
        names = ", ".join(arrays.class_names[label] for label in lost)
        raise DataError(
            "every class must keep an image to train on, but of "
            f"{len(used)} training images none would be left of: {names}; raise train_images or "
            "lower validation_fraction"
        )


def _take(arrays: ImageArrays, indices: Tensor, mean: Tensor, std: Tensor, task: Task) -> ImageSet:
    return ImageSet(arrays.train_images[indices], arrays.train_labels[indices], mean, std, task)


def _channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Measure mean and (population) std per channel of pixels scaled to 0..1.

    Other inputs are not scaled, and the std of a channel (or feature) that is constant is 1.
    """
    if images.dtype != torch.uint8:
        exact = images.double().transpose(0, 1).flatten(1)
        std = exact.std(1, correction=0).float()
        # Rounding leaves a tiny one of a large constant.
        varies = exact.amax(1) > exact.amin(1)
        return exact.mean(1).float(), std.where(varies & (std > 0), 1.0)
    # From counts of the 256 values: exact, and without a float copy of all the images.
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share = counts / counts.sum()
        mean = (share * levels).sum()
        std = (share * (levels - mean) ** 2).sum().sqrt()
        if int((counts > 0).sum()) < 2:
            raise DataError(
                "every channel must vary over the training images, but all pixels of channel "
                f"{channel} are {int(counts.argmax())}; check the image files, or read fewer "
                "channels"
            )
        means.append(mean)
        stds.append(std)
    return torch.stack(means).float(), torch.stack(stds).float()


def _fingerprint(splits: Splits) -> str:
    digest = hashlib.sha256(repr(splits.spec).encode())
    for part in (splits.train, splits.validation, splits.test):
        digest.update(f"/{len(part)}/".encode())
        digest.update(part.images.contiguous().numpy().data)
        digest.update(part.labels.contiguous().numpy().data)
    return digest.hexdigest()[:16]
