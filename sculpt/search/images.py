"""The images of a study."""

from collections.abc import Iterator
from contextlib import suppress

from sculpt.config import Data, Params, Range, Study, label, parameter_path
from sculpt.data import ImageSet, Spec, Splits, Task, make_splits
from sculpt.data.splits import check_targets
from sculpt.errors import ConfigError, DataError
from sculpt.registry import DATASETS


def describe_data(study: Study) -> Spec:
    """Return the shape of the study's images; DataError if, say, their folder is missing, the
    study's task is none for them, or they are of one class."""
    spec: Spec = DATASETS.get(study.data.name)(**study.data.options).describe()
    check_targets(_task(study), spec)
    if spec.targets == "classes" and spec.outputs < 2:
        raise DataError(
            "there must be two classes at least to tell apart, but those of data.name "
            f"{study.data.name} are {spec.outputs}; add images of another one"
        )
    return spec


def missing_data(study: Study) -> str | None:
    """Return which of the study's images are missing and how to get them, or None."""
    return _missing(study.data)


def missing_scoring_data(study: Study) -> str | None:
    """Return which images of `pruning.data` are missing and how to get them, or None."""
    missing = (_missing(candidate.pruning.data) for candidate in _scoring_apart(study))
    return next((sentence for sentence in missing if sentence), None)


def load_data(study: Study) -> Splits:
    """Read the study's images and split them; DataError if that cannot be done as asked."""
    return _load(study.data, study)


def load_scoring_images(study: Study, splits: Splits) -> ImageSet:
    """Return the images that candidates are scored on, on the device of the splits; DataError if
    those of `pruning.data` are missing, unreadable, or of another shape."""
    if study.pruning.data is None:
        return splits.train
    others = _load(study.pruning.data, study)
    if others.spec != splits.spec:
        raise DataError(
            "the images of pruning.data must have the shape and the number of classes of those "
            f"of data ({splits.spec}), but have {others.spec}; choose another data set"
        )
    return others.train.to(splits.train.device)


def check_scoring_images(study: Study, splits: Splits) -> None:
    """Load all images that candidates may be scored on; DataError as of `load_scoring_images`."""
    for candidate in _scoring_apart(study):
        load_scoring_images(candidate, splits)


def _scoring_apart(study: Study) -> Iterator[Study]:
    """Yield the study, with each value of a parameter in `pruning.data`, if it has such images."""
    values: list[Params] = [{}]
    for key, dimension in study.space.parameters.items():
        if parameter_path(key).startswith("pruning.data"):
            listed = [dimension.low, dimension.high] if isinstance(dimension, Range) else dimension
            values += [{key: label(value)} for value in listed]
    for params in values:
        with suppress(ConfigError):  # it has a place in another parameter's value only
            candidate = study.with_parameters(params)
            if candidate.pruning.data:
                yield candidate


def _missing(data: Data | None) -> str | None:
    return DATASETS.get(data.name)(**data.options).available() if data else None


def _load(data: Data, study: Study) -> Splits:
    source = DATASETS.get(data.name)(**data.options)
    if missing := source.available():
        raise DataError(missing)
    return make_splits(
        source.read(),
        validation_fraction=data.validation_fraction,
        seed=data.split_seed,
        train_images=data.train_images,
        task=_task(study),
    )


def _task(study: Study) -> Task:
    return Task(study.task.loss, study.task.metric)
