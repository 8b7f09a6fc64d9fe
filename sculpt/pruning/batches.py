"""Scoring data as users have it: one tensor, several inputs, or an iterable of batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from sculpt.diagnostics.arguments import Inputs, check_inputs, count_rows, take_rows
from sculpt.diagnostics.layers import describe
from sculpt.errors import InputError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
LABELS = ("labels", "label")
"""Keys of the labels in a batch that is a dictionary, as libraries of data sets name them."""
NO_LABEL = -1
"""A placeholder that no loss accepts, for criteria that read no labels."""
IGNORED = -100
"""PyTorch's own label for a position that no loss counts."""

Batches = Callable[[], Iterable[tuple[Any, Tensor]]]
"""Starts a pass over (inputs, labels)."""


def batches_of(count: int, size: int) -> list[slice]:
    """Split rows into batches; a last single row, which batch norm refuses, joins the others."""
    starts = list(range(0, count, size))
    if size > 1 and len(starts) > 1 and starts[-1] == count - 1:
        starts.pop()
    return [slice(*ends) for ends in zip(starts, [*starts[1:], count], strict=False)]


def read_batches(
    model: nn.Module, inputs: Any, labels: Any, batch_size: int, *, whole: bool
) -> tuple[Batches, Inputs | None]:
    """Read the data that a network is scored on; see `prune` for the forms that it may have.

    Args:
        model: Decides the device and the type of floats.
        inputs, labels: As given by the user.
        batch_size: Of inputs that come in one piece.
        whole: Whether each batch is left as it was given, for a loss of the user's own, in the
            place of its inputs.

    Returns:
        Passes over the batches; and one row of inputs as an example, None if none is known.

    Raises:
        InputError, NumericsError: see `prune`. Batches of an iterable are checked when their turn
            comes, the first one at once.
    """
    if inputs is None:
        return tuple, None
    if isinstance(inputs, Tensor | tuple | Mapping):
        inputs, found = _without_labels(inputs)
        inputs = check_inputs(inputs, model)
        answers = _check_labels(found if labels is None else labels, inputs)

        def pieces() -> Iterator[tuple[Any, Tensor]]:
            for rows in batches_of(count_rows(inputs), batch_size):
                part = take_rows(inputs, rows)
                if whole and answers is not None:
                    part = (part, answers[rows])
                yield part, _no_labels(part) if answers is None else answers[rows]

        return pieces, take_rows(inputs, slice(1))
    if labels is not None or not isinstance(inputs, Iterable):
        raise InputError(
            "inputs must be one tensor (N, ...), a tuple or a dict of them, or an iterable of "
            f"batches with their labels in them, but got {describe(inputs)}"
            + (" beside labels; zip the two" if labels is not None else "")
        )
    batches: Iterable[Any] = list(inputs) if isinstance(inputs, Iterator) else inputs
    device = next(model.parameters()).device

    def given() -> Iterator[tuple[Any, Tensor]]:
        for batch in batches:
            plain = dict(batch) if isinstance(batch, Mapping) else batch
            here = tree_map_only(Tensor, lambda tensor: tensor.to(device), plain)
            if whole:
                yield here, torch.full((1,), NO_LABEL)
                continue
            parts, own = _split(here)
            parts = check_inputs(parts, model)
            answers = _check_labels(own, parts)
            yield parts, _no_labels(parts) if answers is None else answers

    first = next(iter(given()), None)
    if first is None:
        raise InputError("there must be a batch to score the network on, but there is none")
    try:
        example = _split(first[0])[0] if whole else first[0]
    except InputError:  # only the user's loss knows
        return given, None
    return given, take_rows(example, slice(1))


def _split(batch: Any) -> tuple[Any, Any]:
    """Split a batch into its inputs and its labels, None if it has none."""
    if not isinstance(batch, tuple | list):
        return _without_labels(batch)
    if len(batch) == 2:
        return batch[0], batch[1]
    if len(batch) == 1:
        return batch[0], None
    raise InputError(
        "a batch must be inputs, a pair (inputs, labels), or a dict of the network's arguments, "
        f"but got {describe(batch)}; make it so (collate_fn of a DataLoader), or give loss="
    )


def _without_labels(inputs: Any) -> tuple[Any, Any]:
    """Take the labels, None if there are none, out of a dictionary of inputs."""
    if not isinstance(inputs, Mapping):
        return inputs, None
    rest = {key: value for key, value in inputs.items() if key not in LABELS}
    return rest, next((inputs[key] for key in LABELS if key in inputs), None)


def _check_labels(labels: Any, inputs: Inputs) -> Tensor | None:
    """Refuse labels that no criterion could read; see `prune`."""
    if labels is None:
        return None
    if (
        not isinstance(labels, Tensor)
        or labels.dtype not in INTEGERS
        or labels.dim() < 1
        or (labels.dim() == 2 and labels.shape[1] > 1 and _is_one_hot(labels))
    ):
        raise InputError(
            "labels must be one tensor (N,) of whole numbers, the classes, or (N, ...) with one "
            f"for each position, but got {describe(labels)}; make it with torch.as_tensor, from "
            "one-hot rows with argmax(1)"
        )
    if (rows := count_rows(inputs)) != len(labels):
        raise InputError(
            f"there must be one label for each input, but got {len(labels)} labels for "
            f"{rows} inputs"
        )
    wrong = labels[(labels < 0) & (labels != IGNORED)]
    if len(wrong):
        raise InputError(f"labels must be 0 or more, but one is {int(wrong.min())}")
    device = next(x.device for x in tree_leaves(inputs) if isinstance(x, Tensor))
    return labels.to(device, torch.int64).clone()


def _is_one_hot(labels: Tensor) -> bool:
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _no_labels(inputs: Inputs) -> Tensor:
    return torch.full((count_rows(inputs),), NO_LABEL)
