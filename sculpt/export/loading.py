"""A network from its file, ready to be used, wherever the file came from."""

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from sculpt.bundle import Bundle, read_bundle
from sculpt.config import Params
from sculpt.diagnostics.layers import Masks, check_masks
from sculpt.errors import InputError, SculptWarning
from sculpt.models import build_network
from sculpt.pruning.trained import NETWORK_FILE
from sculpt.registry import MODELS
from sculpt.study_file import options_schema

LARGEST_NUMBER = 2**20
"""In the description of a network: no width, no depth and no image comes near it."""

SPARE = 4
"""How many times the tensors of the file a family may make while it builds; it may replace some."""


class Architecture(TypedDict):
    """Which network it is."""

    name: str
    """Of a registered family."""
    options: dict[str, object]
    """Of that family, by keyword."""


class NetworkInput(TypedDict):
    """What images a network takes."""

    channels: int
    height: int
    """Pixels."""
    width: int
    classes: int
    mean: list[float]
    """Of each channel, of pixels from 0 to 1: what images are normalised by."""
    std: list[float]
    class_names: list[str] | None


class Metadata(TypedDict, total=False):
    """What stands in a network's file about it, see `sculpt.export.description`.

    Anybody may have written the file: `load` has checked `model` and `input` and that `record`
    and the others are JSON, and nothing more.
    """

    study: str
    trial: int | str
    """A number, or `base`."""
    role: str
    params: Params
    counting: Literal["paper", "total"]
    """Rule that `kept_parameters` are counted by."""
    kept_parameters: int
    seed: int
    val_error: float
    """Of this seed, as a fraction."""
    test_error: float | None
    diverged: bool
    model: Architecture
    input: NetworkInput
    plugins: list[str]
    """Modules of the study, of which one may have the family."""
    versions: dict[str, str]
    record: Mapping[str, Any]
    """Of the trial, without its runs' histories."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network as it was trained."""

    model: nn.Module
    """In eval mode, float32, on the CPU; pruned weights are 0."""
    masks: Masks
    metadata: Metadata

    @property
    def record(self) -> Mapping[str, Any]:
        """The record of the network's trial; empty where the file has none."""
        return self.metadata.get("record") or {}


def load(path: str | Path) -> Loaded:
    """Load a network that sculpt has written: a bundle, or a folder of an export.

    The file may come from anybody: nothing of it is executed. A network of a family from a
    plug-in can only be built once you have imported that plug-in.

    Args:
        path: The file of a trial's network, or a folder with a `network.safetensors`.

    Raises:
        InputError: the file cannot be read, or is none of ours; it does not say which network it
            is, or the family is not known here; its tensors are not those of that network, or
            hold NaN without saying that the network diverged.

    Warns:
        SculptWarning: the network diverged, so that some of its weights may be no numbers.
    """
    path = Path(path)
    file = path / NETWORK_FILE if path.is_dir() else path
    bundle = read_bundle(file)
    _check_finite(file, bundle)
    build = _builder(file, bundle.metadata)
    with _bounded(bundle.state):
        plan = build("meta")
    _check_state(file, plan, bundle)
    try:
        check_masks(plan, bundle.masks)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    # Built for good only now that it is known to be of the file's own size.
    model = build("cpu")
    model.load_state_dict(bundle.state)
    return Loaded(model.eval(), bundle.masks, cast(Metadata, bundle.metadata))


def build_described(
    file: Path, described: Mapping[str, object], state: dict[str, Tensor]
) -> nn.Module:
    """Build a network that a file describes, untrained.

    Args:
        file: For messages.
        described: With `model` and `input`, see `Metadata`; not checked yet.
        state: Tensors that the network must not be far larger than: the file may be anybody's.

    Raises:
        InputError: the description does not fit its family, or asks for too much.
    """
    build = _builder(file, described)
    with _bounded(state):
        build("meta")
    return build("cpu")


def _check_finite(file: Path, bundle: Bundle) -> None:
    if not bundle.not_finite:
        return
    if bundle.metadata.get("diverged") is not True:
        raise InputError(
            f"{file}: weights must be finite numbers, but some of {bundle.not_finite[0]} are not, "
            "and the file does not say that the network diverged; sculpt.bundle.read_bundle reads "
            "it as it is"
        )
    warnings.warn(
        f"{file}: this network diverged: some of {bundle.not_finite[0]} are no finite numbers",
        SculptWarning,
        stacklevel=3,
    )


def _builder(file: Path, metadata: Mapping[str, object]) -> Callable[[str], nn.Module]:
    """Return what builds, on a device, the network that a file describes, once that is checked.

    Raises:
        InputError: the description is not sound. What is returned raises it, too.
    """
    model, images = metadata.get("model"), metadata.get("input")
    if not isinstance(model, dict) or not isinstance(images, dict):
        missing = "input" if isinstance(model, dict) else "model"
        raise InputError(
            f"{file}: a network's file must say of which family it is and what images it takes, "
            f"but has no {missing}; build the network yourself, and load the state that "
            "sculpt.bundle.read_bundle returns"
        )
    family, options = model.get("name"), model.get("options")
    if not isinstance(family, str) or family not in MODELS.names():
        plugins = metadata.get("plugins")
        raise InputError(
            f"{file}: the model family must be one of {', '.join(MODELS.names())}, but is "
            f"{family!a:.60}; "
            + (
                f"its study had plug-ins: {', '.join(f'{p!a:.60}' for p in plugins[:5])}. Import "
                "the one that has the family first, if you trust it; a file never does"
                if isinstance(plugins, list) and plugins
                else "import the module that registers it first"
            )
        )
    lengths: dict[str, int] = {}
    for key in ("channels", "height", "width", "classes"):
        length = images.get(key)
        if type(length) is not int or not 1 <= length <= LARGEST_NUMBER:
            raise InputError(
                f"{file}: input.{key} must be a whole number from 1 to {LARGEST_NUMBER}, but is "
                f"{length!a:.60}"
            )
        lengths[key] = length
    options = _checked_options(file, family, options)
    pixels = lengths.pop("height") * lengths.pop("width")
    arguments = {**lengths, "pixels": pixels, **options}

    def build(device: str) -> nn.Module:
        try:
            with torch.random.fork_rng(devices=[]), torch.device(device):
                return build_network(family, **arguments)
        except Exception as error:
            # The options come from anybody, and families do not foresee all of them.
            raise InputError(
                f"{file}: the options of {family} must fit it, but it cannot be built "
                f"({type(error).__name__}: {error!s:.200})"
            ) from error

    return build


def _checked_options(file: Path, family: str, options: Any) -> Mapping[str, Any]:
    """Return the keyword arguments of a family, of a file by anybody."""
    try:
        options_schema(MODELS.get(family)).model_validate(options)
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
    """Stop a network from being built that is far larger than the tensors that are there."""
    tensors, weights = SPARE * len(state), SPARE * sum(map(Tensor.numel, state.values()))
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, weights
        if threading.get_ident() == thread and parameter is not None:
            tensors, weights = tensors - 1, weights - parameter.numel()
            if tensors < 0 or weights < 0:
                raise ValueError("it is far larger than what is in the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _check_state(file: Path, plan: nn.Module, bundle: Bundle) -> None:
    """Refuse tensors that are not those of a network, in name, shape and type."""
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
                f"{file}: the tensors must be those of the network it says it is, but for {name} "
                f"it has {here}, and the network has {there}"
            )
