"""Condensing after training: exact removal of a program's channels on no path, constants included.

A channel is *alive* if it depends on the image, else it is a constant (zero, most often), and it is
*read* if the logits depend on it. Channels that are not both are removed; the contribution of a
constant becomes part of the next layer's bias. Channels are removed from a whole stream at once:
additions make one unit of a channel in all the places where it appears, so that nothing has to be
gathered. Around a call that is not understood they all stay.

Zero padding keeps a constant from being constant behind a convolution. Such constants stay, but of
those that only convolutions read one is enough: the others are multiples.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from sculpt.arithmetic import relative_difference
from sculpt.diagnostics.arguments import material_weights
from sculpt.diagnostics.layers import describe
from sculpt.errors import ExportError, InputError
from sculpt.export import program as ops
from sculpt.export.lowering import lower, masked_copy
from sculpt.export.module import activation, evaluate_program, to_module
from sculpt.export.program import Array, Program
from sculpt.graph.carrying import run_call
from sculpt.graph.channels import Liveness, Mask, Numbers, find_paths, find_units, push
from sculpt.graph.trace import answer_to_noise, tensors_in
from sculpt.pruning.masks import Masks

LARGEST = 1e-10
"""Difference in float64 that a certificate allows, as a share of the largest logit."""


ROUNDING = 1e-13
"""Rounding error of values computed alike for every pixel, as a share of them."""


@dataclass(frozen=True, eq=False)
class Values(Liveness):
    """Liveness and constants of the channels of one operation's result."""

    constant: Array
    """(channels,): the value, in every pixel, of channels that are not alive; 0 for the others."""

    @property
    def needed(self) -> Mask:
        """(channels,): constants that something reads, and that are not 0."""
        return self.read & (self.constant != 0)


def compact(model: nn.Module, masks: Masks, example_inputs: Tensor) -> fx.GraphModule:
    """Return a smaller network that computes what a trained, masked one does.

    Channels that no path of kept weights uses are gone, and batch norms are part of the layers
    before them; among the weights that stay there are still zeros. No layer has more weights than
    it had: a channel stays where its convolution would fall out of its groups without it. Before
    and behind a call that is not understood all channels stay: a norm over several channels, for
    example, or a layer that is called twice. It is for inference: float32, on the CPU, in eval
    mode. Before it is rounded to float32 it is compared with the network in float64, on the example
    inputs, to 1e-10 of the largest logit.

    Args:
        model: Trained, on any device; it is not changed. Its forward pass must be traceable by
            torch.fx. Or else by `torch.export`, for images of the shape of the example and batches
            of any size: then its control flow may depend on sizes, but not on values.
        masks: Keyed by parameter name.
        example_inputs: (N, ...), real images or noise.

    Returns:
        Layers of `torch.nn`, and a forward pass that calls them, from images (N, ...) to logits
        (N, classes), or to whatever else the model returns. Its `meta["left_whole"]` lists the
        calls around which all channels stayed, with the kind of each.

    Raises:
        InputError: the masks do not fit the model, a pruned weight of it is not zero, or the inputs
            are no tensor (N, ...) of finite numbers.
        ExportError: the forward pass cannot be traced, or the result would compute something else.
    """
    material_weights(model)
    is_tensor = isinstance(example_inputs, Tensor) and example_inputs.dim() > 1
    if not is_tensor or not example_inputs.numel() or not example_inputs.isfinite().all():
        raise InputError(
            "example inputs must be one tensor (N, ...) of finite numbers, one at least, but got "
            f"{describe(example_inputs)}"
        )
    with torch.inference_mode(False), torch.device("cpu"):
        program = certified_program(model, masks, example_inputs.clone(), calls=True)
        small = to_module(program)
    small.meta["left_whole"] = program.left_whole
    return small


def certified_program(
    model: nn.Module, masks: Masks, images: Tensor, *, calls: bool = False
) -> Program:
    """Return the condensed program of a network, certified on images; see `compact`.

    With `calls` it may have calls of the network itself, which no format has.
    """
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ExportError(
                "the weights of a network must be finite to be exported, but some of "
                f"{name} are not; it has diverged"
            )
    certify(model, masks, program := condense(lower(model, masks, images, calls=calls)), images)
    return program


def certify(model: nn.Module, masks: Masks, program: Program, images: Tensor) -> float:
    """Return how far a program's logits are from the network's; see `relative_difference`.

    They are compared on the images, and on noise of their shape.

    Raises:
        ExportError: they differ by 1e-10 or more, are not finite, or there are none.
    """
    network = masked_copy(model, masks, torch.float64)
    images = images.detach().to("cpu", torch.float64)
    with torch.no_grad():
        answers = [(images, tensors_in(network(images.clone())))]
    if answered := answer_to_noise(network, tuple(images.shape[1:])):
        answers.append(answered)
    difference = 0.0
    for inputs, expected in answers:
        with torch.no_grad():
            found = tensors_in(evaluate_program(program, inputs.clone()))
        if not expected or len(expected) != len(found):
            raise ExportError(
                "a network must return tensors, by themselves or in tuples, lists and "
                "dictionaries, to be compared with its export, but returned others"
            )
        parts = zip(expected, found, strict=True)
        difference = max(difference, *(relative_difference(*pair) for pair in parts))
    if not difference < LARGEST:
        raise ExportError(
            f"an export must compute what the network does, to {LARGEST:g} in float64, but the "
            f"logits differ by {difference:.3g}; please report this, with the network"
        )
    return difference


def condense(program: Program) -> Program:
    """Return a program of the same function with fewer channels, and the same operations.

    Exact up to rounding in float64 (sums are taken in another order).
    """
    program = _merge_constants(program)
    values = find_values(program)
    kept = _kept(program, values)
    places = range(len(program.operations))
    return Program(tuple(_narrowed(program, place, values, kept) for place in places))


def find_values(program: Program) -> list[Values]:
    """Find the liveness and constants of each operation's channels."""
    links, alive, constants = program.links, list[Mask](), list[Array]()
    for place, (operation, link) in enumerate(zip(program.operations, links, strict=True)):
        given = [alive[source] for source in link.sources]
        known = [constants[source] for source in link.sources]
        match operation:
            case ops.Layer():
                own = push(link, [_varying(operation, given[0], known[0])])
            case ops.Affine(scale=scale):
                own = push(link, given) & scale.astype(np.bool_)
            case ops.Pool(function="average", padding=padding) if any(padding):
                own = given[0] | (known[0] != 0)
            case ops.Call(product=True):
                # It varies with each of its sources, unless one is zero.
                there = [varies | (value != 0) for varies, value in zip(given, known, strict=True)]
                own = push(replace(link, product=False), given) & push(link, there)
            case _:
                own = push(link, given)
        constant = _constant(program, place, known, own)
        own = own | np.isnan(constant)
        alive.append(own)
        constants.append(np.where(own, 0.0, constant))
    paths = find_paths(links, alive, {len(links) - 1})
    return [
        Values(own.alive, own.read, constant)
        for own, constant in zip(paths, constants, strict=True)
    ]


def _constant(program: Program, place: int, given: list[Array], varies: Mask) -> Array:
    """Compute the result, (channels,), of an operation on constants; NaN if it is not constant."""
    operation, link = program.operations[place], program.links[place]
    match operation:
        case ops.Layer():
            return operation.bias + _taps(operation) @ given[0]
        case ops.Affine(scale=scale, shift=shift):
            return given[0] * scale + shift
        case ops.Activation():
            return activation(operation)(torch.from_numpy(given[0])).numpy()
        case ops.Call() if link.carried is not None and not varies.all():
            return _result_of_constants(program, operation, given)
    if link.carried is None:
        return np.zeros(link.width)
    pairs = zip(link.carried, given, strict=True)
    return np.sum([np.where(one >= 0, values[one], 0.0) for one, values in pairs], axis=0)


def _result_of_constants(program: Program, call: ops.Call, constants: list[Array]) -> Array:
    """Run a call on images of constants, (channels,) of each source; see `_constant`."""
    known = dict(zip(call.sources, constants, strict=True))
    given: dict[fx.Node, Any] = {}
    for node, source in zip(call.node.all_input_nodes, call.inputs, strict=True):
        given[node] = node.meta["value"]
        if source in known:
            channels = torch.from_numpy(known[source])
            *size, last = (2, *program.operations[source].shape[1:], len(channels))
            axis = program.axes[source]
            images = channels.expand(*size, last).movedim(-1, axis)
            given[node] = images.contiguous()
    module = call.what if isinstance(call.what, nn.Module) else None
    with torch.no_grad():
        found = run_call(call.node, module, given).movedim(call.axis, 0).flatten(1).numpy()
    spread = found.max(axis=1) - found.min(axis=1)
    return np.where(spread <= ROUNDING * np.abs(found[:, 0]), found[:, 0], np.nan)


def _kept(program: Program, values: list[Values]) -> list[Mask]:
    """Return each operation's channels that stay: of every unit that is needed anywhere."""
    units = find_units(program.links)
    needed = np.zeros(1 + int(np.concatenate(units).max()), dtype=np.bool_)
    users = program.users()
    for place, own in enumerate(values):
        needed[units[place][own.on_path]] = True
        # A constant that is added to a signal, or that padding cuts off, has to be there.
        for user in (program.operations[user] for user in users[place]):
            if not isinstance(user, ops.Layer) or _pads(user):  # no bias can take it up
                needed[units[place][own.needed]] = True
    for place, call in enumerate(program.operations):
        if isinstance(call, ops.Call) and call.carried is None:
            for found in (units[place], *(units[source] for source in call.sources)):
                needed[found] = True
    needed[units[0]] = True  # images have all their channels
    needed[units[-1]] = True  # and all classes have a logit
    for found in units:
        if len(found) and not needed[found].any():
            needed[found[0]] = True  # no operation may be without channels
    _complete_groups(program, units, needed)
    return [needed[found] for found in units]


def _complete_groups(program: Program, units: list[Numbers], needed: Mask) -> None:
    """Keep groups equal where a convolution would grow if all unneeded channels went.

    Weights between groups have to be stored once groups differ in the number of their channels.
    """
    settled = False
    while not settled:
        settled = True
        for place, layer in enumerate(program.operations):
            if not isinstance(layer, ops.Conv):
                continue
            sides = [units[at].reshape(layer.groups, -1) for at in (place, layer.source)]
            stays = needed[sides[0]].any(axis=1) | needed[sides[1]].any(axis=1)
            widest = [max(1, int(needed[side].sum(axis=1).max())) for side in sides]
            rows, columns = needed[units[place]], needed[units[layer.source]]
            dense = rows.sum() * columns.sum() / _groups(layer.groups, rows, columns)
            if dense > stays.sum() * widest[0] * widest[1]:
                for side, width in zip(sides, widest, strict=True):
                    for group in side[stays]:
                        spare = group[~needed[group]]
                        needed[spare[: width - len(group) + len(spare)]] = True
                settled = False


def _groups(groups: int, rows: Mask, columns: Mask) -> int:
    """Count the equal groups that a layer's kept channels form; 1 if they are unequal."""
    sides = [side.reshape(groups, -1).sum(axis=1) for side in (rows, columns)]
    kept = [(row, column) for row, column in zip(*sides, strict=True) if row or column]
    return len(kept) if len(set(kept)) == 1 else 1


def _narrowed(
    program: Program, place: int, values: list[Values], kept: list[Mask]
) -> ops.Operation:
    """Return an operation with the channels that stay, in itself and in its sources."""
    operation, rows = program.operations[place], kept[place]
    shape = (int(rows.sum()), *operation.shape[1:])
    match operation:
        case ops.Layer():
            source, own = values[operation.source], values[place]
            varies = _varying(operation, source.alive, source.constant)
            columns = kept[operation.source]
            # Only weights on a path stay; the others of a channel that stays are zero.
            groups = _groups(len(operation.blocks), rows, columns)
            used = np.multiply.outer(own.on_path[rows], varies[columns])
            weight = _narrowed_weight(operation, rows, columns, used, groups)
            bias = operation.bias + _taps(operation) @ np.where(varies, 0.0, source.constant)
            bias = np.where(own.alive, bias * own.read, own.constant)
            narrow = replace(operation, shape=shape, weight=weight, bias=bias[rows])
            return replace(narrow, groups=groups) if isinstance(narrow, ops.Conv) else narrow
        case ops.Affine(scale=scale, shift=shift):
            return replace(operation, shape=shape, scale=scale[rows], shift=shift[rows])
        case ops.Channels(taken=taken):
            taken = _renumbered(taken, kept[operation.source])[rows]
            return replace(operation, shape=shape, taken=taken)
        case ops.Call(sources=sources, carried=carried) if carried is not None:
            pairs = zip(carried, sources, strict=True)
            fewer = tuple(_renumbered(one, kept[source])[rows] for one, source in pairs)
            return replace(operation, shape=shape, carried=fewer)
    return replace(operation, shape=shape)


def _narrowed_weight(layer: ops.Layer, rows: Mask, columns: Mask, used: Mask, groups: int) -> Array:
    """Return the weight, (outputs, inputs of a group, ...), of the channels that stay.

    Args:
        layer: Of all channels.
        rows, columns: Its outputs and inputs that stay.
        used: (outputs, inputs) that stay: where weights are not set to zero.
        groups: That they form; if there is one, the zeros between the old ones become weights.
    """
    if groups == 1:
        weight = layer.spread(layer.weight)[rows][:, columns]
    else:
        sides = [side.reshape(len(layer.blocks), -1) for side in (rows, columns)]
        there = np.flatnonzero(sides[0].any(axis=1))
        outputs, inputs = (np.nonzero(side)[1].reshape(groups, -1) for side in sides)
        weight = layer.blocks[there[:, None, None], outputs[:, :, None], inputs[:, None]]
        weight = weight.reshape(-1, *weight.shape[2:])
        places = np.arange(groups)
        pairs = used.reshape(groups, outputs.shape[1], groups, -1)[places, :, places]
        used = pairs.reshape(weight.shape[:2])
    return np.ascontiguousarray(weight * used.reshape(*used.shape, *[1] * (weight.ndim - 2)))


def _renumbered(carried: Numbers, kept: Mask) -> Numbers:
    """Count channels of a source among those that are kept."""
    return np.where(carried >= 0, (kept.cumsum() - 1)[carried], -1)


def _merge_constants(program: Program) -> Program:
    """Fold constants that only convolutions read into the largest one of each operation."""
    values, users, units = find_values(program), program.users(), find_units(program.links)
    operations: list[Any] = list(program.operations)
    # In a sum, a constant is needed in every pixel.
    sums = [
        units[place]
        for place, link in enumerate(program.links)
        if link.carried is not None and len(link.sources) > 1
    ]
    added = np.concatenate([*sums, np.empty(0, np.int64)])
    for place, own in enumerate(values):
        readers = [operations[user] for user in users[place]]
        constants = np.flatnonzero(own.needed)
        folds = all(isinstance(reader, ops.Conv) and reader.groups == 1 for reader in readers)
        if len(constants) < 2 or not folds or np.isin(units[place][constants], added).any():
            continue
        largest = constants[np.abs(own.constant[constants]).argmax()]
        others = constants[constants != largest]
        factors = own.constant[others] / own.constant[largest]
        for user in users[place]:
            weight = operations[user].weight.copy()
            weight[:, largest] += np.tensordot(weight[:, others], factors, axes=(1, 0))
            weight[:, others] = 0.0
            operations[user] = replace(operations[user], weight=weight)
    return Program(tuple(operations))


def _taps(layer: ops.Layer) -> Array:
    """Sum a layer's weights over the kernel, (outputs, inputs)."""
    return layer.spread(layer.weight.reshape(*layer.weight.shape[:2], -1).sum(axis=2))


def _varying(layer: ops.Layer, alive: Mask, constant: Array) -> Mask:
    """Inputs of a layer that are not one constant everywhere under its kernel."""
    # Zeros around the image make two values of a constant.
    return alive | (constant != 0) if _pads(layer) else alive


def _pads(layer: ops.Layer) -> bool:
    return isinstance(layer, ops.ConvTranspose) or (
        isinstance(layer, ops.Conv) and any(layer.padding)
    )
