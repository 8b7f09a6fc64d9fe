"""Small programs of every kind of operation, made at random, for what compiles them."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from sculpt.export.program import (
    Activation,
    Add,
    Affine,
    Channels,
    Conv,
    Flatten,
    Input,
    Linear,
    Operation,
    Pool,
    Program,
)

SIDES = st.sampled_from([1, 2, 3, 5, 7, 8, 8, 16])  # of which some can be cut into tiles


@st.composite
def programs(draw: Callable) -> Program:
    """Draw a program of up to ten operations."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    operations: list[Operation] = [Input((draw(st.sampled_from([1, 3])), draw(SIDES), draw(SIDES)))]
    for _ in range(draw(st.integers(1, 6))):
        add = draw(st.sampled_from([_conv, _conv, _affine, _activation, _add, _pool, _channels]))
        operations.append(add(draw, random, operations))
    if draw(st.booleans()):
        channels, *sides = operations[-1].shape
        sizes = tuple(sides), tuple(sides), (0, 0)
        function = draw(st.sampled_from(["average", "max"]))
        source = len(operations) - 1
        operations.append(Pool((channels, 1, 1), "whole", source, function, *sizes, False))
    if draw(st.booleans()):
        source = len(operations) - 1
        operations.append(Flatten((int(np.prod(operations[-1].shape)),), "flat", source))
        for _ in range(draw(st.integers(0, 2))):
            operations.append(_linear(draw, random, operations))
            if draw(st.booleans()):
                operations.append(_activation(draw, random, operations))
    return Program(tuple(operations))


def _weights(draw: Callable, random: np.random.Generator, *shape: int) -> np.ndarray:
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    fan_in = max(1.0, density * np.prod(shape[1:]))
    return random.normal(size=shape) * (random.random(shape) < density) / np.sqrt(fan_in)


def _conv(draw: Callable, random: np.random.Generator, operations: list[Operation]) -> Operation:
    source = draw(st.integers(0, len(operations) - 1))
    channels, *sides = operations[source].shape
    window, stride, padding, given = [], [], [], []
    for side in sides:
        window.append(draw(st.integers(1, 4)))
        least = max(0, -(-(window[-1] - side) // 2))
        padding.append(draw(st.integers(least, least + 2)))
        stride.append(draw(st.integers(1, 3)))
        given.append((side + 2 * padding[-1] - window[-1]) // stride[-1] + 1)
    outputs = draw(st.sampled_from([1, 5, 20]))
    weight = _weights(draw, random, outputs, channels, *window)
    bias = random.normal(size=outputs)
    name, sizes = f"conv{len(operations)}", (tuple(stride), tuple(padding))
    return Conv((outputs, *given), name, source, weight, bias, *sizes)


def _linear(draw: Callable, random: np.random.Generator, operations: list[Operation]) -> Operation:
    outputs, inputs = draw(st.sampled_from([1, 9])), operations[-1].shape[0]
    weight, source = _weights(draw, random, outputs, inputs), len(operations) - 1
    return Linear((outputs,), f"linear{source}", source, weight, random.normal(size=outputs))


def _affine(draw: Callable, random: np.random.Generator, operations: list[Operation]) -> Operation:
    source = draw(st.integers(0, len(operations) - 1))
    shape = operations[source].shape
    scale, shift = random.normal(size=(2, shape[0]))
    return Affine(shape, f"affine{len(operations)}", source, scale, shift)


def _activation(
    draw: Callable, random: np.random.Generator, operations: list[Operation]
) -> Operation:
    source = len(operations) - 1
    function = draw(st.sampled_from(["relu", "relu", "relu6", "leaky_relu", "tanh", "selu"]))
    slope = 0.3 if function == "leaky_relu" else 0.0
    return Activation(operations[source].shape, f"act{source}", source, function, slope)


def _add(draw: Callable, random: np.random.Generator, operations: list[Operation]) -> Operation:
    shape, source = operations[-1].shape, len(operations) - 1
    same = [place for place, other in enumerate(operations) if other.shape == shape]
    pair = draw(st.permutations([source, draw(st.sampled_from(same))]))
    return Add(shape, f"add{source}", *pair)


def _pool(draw: Callable, random: np.random.Generator, operations: list[Operation]) -> Operation:
    source = len(operations) - 1
    channels, *sides = operations[source].shape
    window = tuple(draw(st.integers(1, min(3, side))) for side in sides)
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, size // 2)) for size in window)
    ceil_mode, function = draw(st.booleans()), draw(st.sampled_from(["average", "max"]))
    # As PyTorch has it, which may drop the last window.
    pooled = F.max_pool2d(
        torch.zeros(1, channels, *sides), window, stride, padding, ceil_mode=ceil_mode
    )
    sizes = (window, stride, padding)
    return Pool(tuple(pooled.shape[1:]), f"pool{source}", source, function, *sizes, ceil_mode)


def _channels(
    draw: Callable, random: np.random.Generator, operations: list[Operation]
) -> Operation:
    source = draw(st.integers(0, len(operations) - 1))
    channels, *sides = operations[source].shape
    taken = random.integers(-1, channels, size=draw(st.sampled_from([1, 4])))
    return Channels((len(taken), *sides), f"channels{len(operations)}", source, taken)
