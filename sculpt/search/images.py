"""What a run needs before its first trial: the images, and the device to train on."""

import torch

from sculpt.config import Data, Study
from sculpt.data import ImageSet, ImageSpec, Splits, make_splits
from sculpt.errors import DataError, InputError
from sculpt.registry import DATASETS


def describe_data(study: Study) -> ImageSpec:
    """Return the shape of the study's images.

    Raises:
        DataError: they cannot be described, for example because a folder is missing.
    """
    return DATASETS.get(study.data.name)(**study.data.options).describe()


def missing_data(study: Study) -> str | None:
    """Return what is missing of the study's images and how to get it, or None."""
    return DATASETS.get(study.data.name)(**study.data.options).available()


def load_data(study: Study) -> Splits:
    """Read the study's images and split them.

    Raises:
        DataError: they are missing, unreadable, or cannot be split as asked.
    """
    return _load(study.data)


def load_scoring_images(study: Study, splits: Splits) -> ImageSet:
    """Return the images that candidates are scored on, on the device of the splits.

    Raises:
        DataError: those of `pruning.data` are missing, unreadable, or of another shape.
    """
    if study.pruning.data is None:
        return splits.train
    others = _load(study.pruning.data)
    if others.spec != splits.spec:
        raise DataError(
            "the images of pruning.data must have the shape and the number of classes of those "
            f"of data ({splits.spec}), but have {others.spec}; choose another data set"
        )
    return others.train.to(splits.train.device)


def _load(data: Data) -> Splits:
    source = DATASETS.get(data.name)(**data.options)
    if missing := source.available():
        raise DataError(missing)
    return make_splits(
        source.read(),
        validation_fraction=data.validation_fraction,
        seed=data.split_seed,
        train_images=data.train_images,
    )


def choose_device(name: str) -> torch.device:
    """Return the device to train on; `auto` is a GPU where there is one.

    Raises:
        InputError: there is no such device here.
    """
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # With its number: a process cannot be made ready for a device without one.
        return torch.device("cuda", torch.cuda.current_device())
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--device must be auto, cpu or a device of this machine, but got {name!r} ({reason})"
        ) from error
