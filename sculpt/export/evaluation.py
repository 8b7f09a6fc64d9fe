"""Evaluating a program by PyTorch, in any precision: what formats are checked against."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sculpt.export.program import (
    Activation,
    Add,
    Affine,
    Array,
    Channels,
    Conv,
    Flatten,
    Input,
    Linear,
    Operation,
    Pool,
    Program,
)


@torch.no_grad()
def evaluate_program(program: Program, images: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, ...), in the precision of the images."""
    results: list[Tensor] = []
    for operation in program.operations:
        results.append(images if isinstance(operation, Input) else _apply(operation, results))
    return results[-1].flatten(1)


def _apply(operation: Operation, results: list[Tensor]) -> Tensor:
    assert not isinstance(operation, Input)
    source = results[operation.source]

    def tensor(values: Array) -> Tensor:
        return torch.from_numpy(values).to(source.device, source.dtype)

    match operation:
        case Conv(weight=weight, bias=bias, stride=stride, padding=padding):
            return F.conv2d(source, tensor(weight), tensor(bias), stride, padding)
        case Linear(weight=weight, bias=bias):
            return F.linear(source, tensor(weight), tensor(bias))
        case Affine(scale=scale, shift=shift):
            shape = (-1, *[1] * (source.dim() - 2))
            return source * tensor(scale).view(shape) + tensor(shift).view(shape)
        case Activation():
            return _activate(operation, source)
        case Add(other=other):
            return source + results[other]
        case Pool(function="max"):
            return F.max_pool2d(
                source,
                operation.window,
                operation.stride,
                operation.padding,
                ceil_mode=operation.ceil_mode,
            )
        case Pool():
            return F.avg_pool2d(
                source,
                operation.window,
                operation.stride,
                operation.padding,
                ceil_mode=operation.ceil_mode,
            )
        case Channels(taken=taken):
            index = torch.from_numpy(taken).to(source.device)
            shape = (-1, *[1] * (source.dim() - 2))
            return source[:, index.clamp(min=0)] * (index >= 0).view(shape).to(source.dtype)
        case Flatten():
            return source.flatten(1)


def _activate(operation: Activation, source: Tensor) -> Tensor:
    match operation.function:
        case "relu":
            return F.relu(source)
        case "relu6":
            return F.relu6(source)
        case "leaky_relu":
            return F.leaky_relu(source, operation.slope)
        case "tanh":
            return torch.tanh(source)
        case "selu":
            return F.selu(source)
