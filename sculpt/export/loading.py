"""Loading a network from its file, which may come from anybody."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sculpt.bundle import NETWORK_FILE, Bundle, read_bundle
from sculpt.diagnostics.layers import Masks, check_masks
from sculpt.errors import ConfigError, InputError, SculptWarning
from sculpt.models import build_for
from sculpt.registry import IMPORT, MODELS, schema_of

LARGEST_NUMBER = 2**20
"""In the metadata of a network: no width, depth or image size comes near it."""

MOST_AXES = 8
"""Largest number of dimensions of an input, without its batch."""

SPARE = 4
"""A family may build so many times the tensors of the file, because it may replace some."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A trained network."""

    model: nn.Module
    """In eval mode, float32, on the CPU; pruned weights are 0."""
    masks: Masks
    metadata: dict[str, Any]
    """See `describe_network`. Anybody may have written the file: `load` has checked `model` and
    `input` and that the rest is JSON, and nothing more."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The record of the network's trial; empty if the file has none."""
        record = self.metadata.get("record")
        return record if isinstance(record, dict) else {}


def load(path: str | Path) -> Loaded:
    """Load a network that sculpt has written: a bundle, or a folder of an export.

    The file may come from anybody: nothing of it is executed. A network of a family from a
    plug-in can only be built once you have imported that plug-in.

    Args:
        path: The file of a trial's network, or a folder with a `network.safetensors`.

    Raises:
        InputError: the file cannot be read, or is not a bundle; it does not describe its network,
            or the family is unknown here; its tensors do not fit that network, or hold NaN
            although the file does not say that the network diverged.

    Warns:
        SculptWarning: the network diverged; some of its weights may be NaN.
    """
    path = Path(path)
    file = path / NETWORK_FILE if path.is_dir() else path
    bundle = read_bundle(file)
    if bundle.not_finite:
        what = f"some of {bundle.not_finite[0]} are not"
        if bundle.metadata.get("diverged") is not True:
            raise InputError(
                f"{file}: weights must be finite numbers, but {what}, and the file does not say "
                "that the network diverged; sculpt.bundle.read_bundle reads it as it is"
            )
        text = f"{file}: this network diverged: {what} finite"
        warnings.warn(text, SculptWarning, stacklevel=2)
    build = _builder(file, bundle.metadata)
    with _bounded(bundle.state):
        plan = build("meta")
    _check_state(file, plan, bundle)
    try:
        check_masks(plan, bundle.masks)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    # Allocated only now that its size is known to be that of the file.
    model = build("cpu")
    model.load_state_dict(bundle.state)
    return Loaded(model.eval(), bundle.masks, bundle.metadata)


def build_described(
    file: Path, described: Mapping[str, object], state: dict[str, Tensor]
) -> nn.Module:
    """Build the untrained network that a file describes (`model` and `input`, see
    `describe_network`); the file may come from anybody.

    InputError if the description does not fit its family, or the network is far larger than the
    tensors in `state`.
    """
    build = _builder(file, described)
    with _bounded(state):
        build("meta")
    return build("cpu")


def _builder(file: Path, metadata: Mapping[str, object]) -> Callable[[str], nn.Module]:
    """Check a description, and return a function that builds its network on a device."""
    model, images = metadata.get("model"), metadata.get("input")
    if not isinstance(model, dict) or not isinstance(images, dict):
        missing = "input" if isinstance(model, dict) else "model"
        raise InputError(
            f"{file}: a network's file must describe its model family and its input, but has no "
            f"{missing}; build the network yourself, and load the state that "
            "sculpt.bundle.read_bundle returns"
        )
    family, options = model.get("name"), model.get("options")
    if not isinstance(family, str) or family not in (*MODELS.names(), IMPORT):
        plugins = metadata.get("plugins")
        raise InputError(
            f"{file}: the model family must be one of {', '.join(MODELS.names())}, but is "
            f"{family!a:.60}; "
            + (
                f"its study had plug-ins: {', '.join(f'{p!a:.60}' for p in plugins[:5])}. Name the "
                "one that has the family (--plugins MODULE; in Python, import it first), if you "
                "trust it"
                if isinstance(plugins, list) and plugins
                else "name the module that registers it (--plugins MODULE; in Python, import it)"
            )
        )
    lengths: dict[str, Any] = {
        key: images.get(key) for key in ("channels", "height", "width", "classes")
    }
    if "shape" in images:
        sides = images["shape"]
        if not isinstance(sides, list) or not 1 <= len(sides) <= MOST_AXES:
            raise InputError(
                f"{file}: input.shape must be a list of at most {MOST_AXES} whole numbers, but is "
                f"{sides!a:.60}"
            )
        lengths = {f"shape.{place}": side for place, side in enumerate(sides)}
        lengths["outputs"] = images.get("outputs")
    for key, length in lengths.items():
        if type(length) is not int or not 1 <= length <= LARGEST_NUMBER:
            raise InputError(
                f"{file}: input.{key} must be a whole number from 1 to {LARGEST_NUMBER}, but is "
                f"{length!a:.60}"
            )
    shape, outputs = input_of(images)
    arguments = _checked_options(file, family, options)

    def build(device: str) -> nn.Module:
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                return build_for(family, shape, outputs, arguments)
        except Exception as error:
            # Anybody may have written the options, and families do not foresee all of them.
            raise InputError(
                f"{file}: the options of {family} must fit it, but it cannot be built "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error

    return build


def input_of(described: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    """Return the shape of one input and the number of outputs, of a network's metadata `input`."""
    if "shape" in described:
        return tuple(described["shape"]), described["outputs"]
    sides = tuple(described[key] for key in ("channels", "height", "width"))
    return sides, described.get("classes", 0)


def _checked_options(file: Path, family: str, options: Any) -> Mapping[str, Any]:
    """Check the keyword arguments of a family; anybody may have written them."""
    try:
        given = options if isinstance(options, dict) else {}
        schema_of(MODELS.get(family), given).model_validate(options)
    except ConfigError as error:
        raise InputError(f"{file}: the options of {family} must fit it, but {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"])) or "they"
        raise InputError(
            f"{file}: the options of {family} must fit it, but {key!a:.60}: {fault['msg']}"
        ) from error
    pending = list(options.values())
    while pending:
        value = pending.pop()
        pending += value.values() if isinstance(value, dict) else []
        pending += value if isinstance(value, list) else []
        # Written so that NaN fails it, too.
        if isinstance(value, int | float) and not abs(value) <= LARGEST_NUMBER:
            raise InputError(
                f"{file}: options of {family} must be at most {LARGEST_NUMBER}, but one is "
                f"{value!a:.60}"
            )
    return options


@contextmanager
def _bounded(state: dict[str, Tensor]) -> Iterator[None]:
    """Raise while a network is being built if it gets far larger than the file's tensors."""
    tensors, weights = SPARE * len(state), SPARE * sum(map(Tensor.numel, state.values()))
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, weights
        if threading.get_ident() == thread and parameter is not None:
            tensors, weights = tensors - 1, weights - parameter.numel()
            if tensors < 0 or weights < 0:
                raise ValueError("it is far larger than what is in the file")

    with register_module_parameter_registration_hook(count):
        yield


def _check_state(file: Path, plan: nn.Module, bundle: Bundle) -> None:
    """Check that tensors have the names, shapes and types of a network's state."""
    expected, found = plan.state_dict(), bundle.state
    for name in [*expected, *found]:
        here, there = (
            f"{state[name].dtype} of shape {tuple(state[name].shape)}"
            if name in state
            else "no such tensor"
            for state in (found, expected)
        )
        if here != there:
            raise InputError(
                f"{file}: the tensors must be those of the network it describes, but for {name} "
                f"it has {here}, and the network has {there}"
            )
