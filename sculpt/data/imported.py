"""Data of a callable of the user's own: tensors, arrays or data sets of any shape."""

from collections.abc import Sized
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from sculpt.data.images import ImageArrays, Spec
from sculpt.data.splits import class_labels, stratified_choice
from sculpt.errors import DataError
from sculpt.registry import DATASETS, IMPORT, REFERENCE, call_imported

# As of the digits: fixed, whatever a study's seed, so that test errors are comparable.
_TEST_FRACTION = 0.2
_TEST_SEED = 0

MOST_CLASSES = 100_000


@DATASETS.register(IMPORT)
class Imported:
    """What a callable returns for the options, in memory.

    It returns `(train, test)`, or `train` alone, of which a fifth becomes the test set: a fifth of
    each class, at random otherwise, the same in every study. Each is a pair (inputs, targets) of
    tensors or arrays, or a `torch.utils.data.Dataset` of such pairs.

    Inputs of 8 bits and shape (N, C, H, W) are images. All others become float32, (N, C, ...):
    series (N, C, T), tables (N, F), and so on. Targets that are whole numbers (N,) are classes,
    numbered from 0; all others become float32, (N, K), K = 1 where they are (N,).

    Args:
        factory: `module:name` of a plug-in, see `sculpt.registry.imported`.
        options: Its keyword arguments.
    """

    def __init__(
        self, *, factory: Annotated[str, Field(pattern=REFERENCE)], **options: Any
    ) -> None:
        self._factory, self._options = factory, options

    def describe(self) -> Spec:
        """Return the shape and classes, which are known once the data was read."""
        return _spec_of(self)

    def available(self) -> str | None:
        """Return None: the callable says what it misses."""
        return None

    def read(self) -> ImageArrays:
        """Call the callable.

        Raises:
            ConfigError: there is no such callable.
            InputError: it raises an error.
            DataError: what it returns is none of the above.
        """
        found = call_imported(self._factory, self._options)
        if isinstance(found, tuple | list) and len(found) == 2 and all(map(_is_set, found)):
            (train, train_targets), (test, test_targets) = map(self._pair, found)
        elif _is_set(found):
            inputs, targets = self._pair(found)
            labels = class_labels(targets)
            held, rest = stratified_choice(labels, round(_TEST_FRACTION * len(labels)), _TEST_SEED)
            train, train_targets, test, test_targets = (
                tensor[places] for places in (rest, held) for tensor in (inputs, targets)
            )
        else:
            raise DataError(
                f"{self._factory} must return (train, test) or train, each a pair (inputs, "
                "targets) of tensors or a torch.utils.data.Dataset, but returns "
                f"{_described(found)}; change it"
            )
        both = [labels for labels in (train_targets, test_targets) if labels.dtype == torch.int64]
        classes = 1 + max((int(labels.max()) for labels in both if len(labels)), default=-1)
        seen = set(train_targets.tolist()) if train_targets.dtype == torch.int64 else ()
        if seen and (unseen := sorted(set(range(classes)) - set(seen))):
            raise DataError(
                f"classes must be numbered from 0, and each be trained on, but of {classes} of "
                f"{self._factory} no training target is {unseen[0]}; renumber them"
            )
        names = tuple(map(str, range(classes)))
        return ImageArrays(train, train_targets, test, test_targets, names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Imported) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> str:
        return f"{self._factory} {sorted(self._options.items())}"

    def _pair(self, found: Any) -> tuple[Tensor, Tensor]:
        if isinstance(found, TensorDataset):
            found = found.tensors
        elif isinstance(found, Dataset):
            if not isinstance(found, Sized):
                raise DataError(
                    f"a data set of {self._factory} must have a length, but {_described(found)} "
                    "has none; make it a map-style Dataset"
                )
            try:
                items = [found[place] for place in range(len(found))]
            except Exception as error:  # somebody's code raises anything
                raise DataError(
                    f"every item of {_described(found)} must be readable, but it raises "
                    f"{type(error).__name__}: {error!s:.300}; mend {self._factory}"
                ) from error
            if not items or not all(isinstance(i, tuple | list) and len(i) == 2 for i in items):
                raise DataError(
                    f"items of {self._factory} must be pairs (input, target), but one of "
                    f"{_described(found)} is none; return one tensor as the input, one as the "
                    "target (several inputs cannot be expressed)"
                )
            found = [self._stacked(part) for part in zip(*items, strict=True)]
        if len(found) != 2:
            raise DataError(
                f"data of {self._factory} must be pairs (inputs, targets), but has {len(found)} "
                "tensors; return one as the input (several cannot be expressed)"
            )
        inputs, targets = (self._tensor(part) for part in found)
        if inputs.shape[:1] != targets.shape[:1]:
            raise DataError(
                f"data of {self._factory} must have a target for each input, but has "
                f"{tuple(inputs.shape)} inputs and {tuple(targets.shape)} targets; pair them"
            )
        return _as_inputs(inputs), _as_targets(targets)

    def _stacked(self, parts: tuple[Any, ...]) -> Tensor:
        tensors = [self._tensor(part) for part in parts]
        try:
            return torch.stack(tensors)
        except RuntimeError as error:
            raise DataError(
                f"inputs (and targets) of {self._factory} must all have one shape, but have not "
                f"({error!s:.200}); resize them"
            ) from error

    def _tensor(self, value: Any) -> Tensor:
        try:
            if isinstance(value, np.ndarray):  # in an order that torch has
                value = np.asarray(value, value.dtype.newbyteorder("="), order="C")
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(
                f"data of {self._factory} must be tensors or arrays of numbers, but some is "
                f"{_described(value)}; convert it (an image with "
                "torchvision.transforms.functional.pil_to_tensor)"
            ) from error
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        return tensor.detach().cpu()


@lru_cache(maxsize=64)
def _spec_of(data: Imported) -> Spec:
    """Read data for its shape; it is read again to train on, rather than kept twice."""
    return data.read().spec


def _is_set(found: Any) -> bool:
    if isinstance(found, Dataset):
        return True
    pair = isinstance(found, tuple | list) and len(found) == 2
    return pair and all(isinstance(part, Tensor | np.ndarray) for part in found)


def _as_inputs(inputs: Tensor) -> Tensor:
    if inputs.dtype == torch.uint8 and inputs.dim() == 4:
        return inputs.contiguous()
    if inputs.dim() < 2 or inputs.is_complex() or 0 in inputs.shape[1:]:
        raise DataError(
            f"inputs must be numbers of shape (N, C, ...), but got {inputs.dtype} of shape "
            f"{tuple(inputs.shape)}; add the missing axis, or numbers"
        )
    return _finite("inputs", inputs)


def _as_targets(targets: Tensor) -> Tensor:
    whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if whole and targets.dim() == 1:
        targets = targets.long()
        lowest, highest = (int(end) for end in targets.aminmax()) if len(targets) else (0, 0)
        if lowest < 0 or highest >= MOST_CLASSES:
            raise DataError(
                f"whole numbers (N,) are classes from 0, below {MOST_CLASSES}, but they span "
                f"{lowest}..{highest}; renumber them, or make targets of another kind floats"
            )
        return targets
    if targets.dim() not in (1, 2) or targets.is_complex():
        raise DataError(
            "targets must be classes (N,) or numbers (N,) or (N, K), but got "
            f"{targets.dtype} of shape {tuple(targets.shape)} (maps and boxes cannot be expressed)"
        )
    return _finite("targets", targets[:, None] if targets.dim() == 1 else targets)


def _finite(what: str, numbers: Tensor) -> Tensor:
    numbers = numbers.to(torch.float32).contiguous()
    if not numbers.isfinite().all():
        raise DataError(
            f"{what} must be finite numbers, but {int((~numbers.isfinite()).sum())} are not; fill "
            "the gaps, or leave them out"
        )
    return numbers


def _described(found: Any) -> str:
    if isinstance(found, tuple | list):
        return f"{len(found)} of {', '.join(type(part).__name__ for part in found[:4])}"
    return type(found).__name__
