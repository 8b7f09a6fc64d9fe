"""NPB, node-path balancing (Pham et al. 2023): masks with many effective nodes and paths.

*Towards Data-Agnostic Pruning At Initialization: What Makes a Good Sparse Mask?*, NeurIPS 2023.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.layers import (
    Layer,
    by_output,
    check_no_embeddings,
    dense_masks,
    from_outputs,
    layer_groups,
    named_layers,
    prunable_parameters,
    weights_of,
)
from sculpt.diagnostics.signal import Signal
from sculpt.diagnostics.topology import follow, linear_skeleton
from sculpt.errors import InputError, NumericsError
from sculpt.pruning.layer_budgets import erk_counts
from sculpt.pruning.node_path import kernel_counts
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA

SMALLEST_INPUT = 1e-250
"""Numbers of paths overflow float64; this start leaves 558 orders of magnitude."""


@CRITERIA.register("npb")
def npb(
    model: nn.Module,
    task: PruningTask,
    *,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.01,
    beta: Annotated[float, Field(ge=0, le=1e6)] = 1.0,
) -> dict[str, Tensor]:
    """Choose, layer by layer, kernel counts that balance effective nodes and effective paths.

    A layer's budget is that of `erk_counts`. In the network's order of execution, the paths to
    each layer's input channels are counted through the masks before it (through shortcuts and
    pooling too, see `linear_skeleton`), and the layer gets the counts M that maximise

        α · nodes + (1 − α) · paths + β · kernels

    as defined by `kernel_counts`, each term between 0 and 1, solved exactly, however
    large the layer. The weights kept within a kernel, and the order of equal channels, are drawn.

    Differences from the authors' code: they solve the relaxed problem in chunks of the layer,
    count a node that few paths reach only in part, and keep a kernel's largest weights.

    Args:
        model: Conv and linear layers, all of them used; see `measure_topology`.
        task: Its input shape must be known; no images are looked at.
        alpha: From 0 to 1: nodes against paths. The authors use 0.01, at which a budget may be too
            small for using every channel: ResNet20 with 2 % of its weights (5,400; fresh ResNet(k
            1, n 3), seed 0) then uses 507 of its 698 channels and wastes a quarter of the weights
            on channels without a reader; from 0.1 on it uses all, at 11 % fewer paths.
        beta: At least 0: the authors' regulariser, which spreads a budget over many kernels before
            it fills them. They use 1, which always spreads; 0 leaves nodes and paths alone.

    Returns:
        1 for exactly `task.kept` weights, 0 for the others. Biases are only kept where all
        weights are.

    Raises:
        InputError: the shape of the inputs is not known, an option is outside its range, or a
            layer is not used.
        BudgetError: more weights must be kept than there are.
        NumericsError: there are more than 10^550 paths.
    """
    if not (0 <= alpha <= 1 and beta >= 0):
        raise InputError(
            f"alpha must be from 0 to 1 and beta at least 0, but got alpha {alpha} and beta {beta}"
            "; the authors use 0.01 and 1"
        )
    shape = task.required_shape("npb")
    check_no_embeddings(model, "npb")
    parameters = prunable_parameters(model)
    budgets = erk_counts({name: p.shape for name, p in parameters.items()}, task.kept)
    chosen: dict[str, Tensor] = {}

    def choose(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before_forward(layer: Any, arguments: tuple[Any, ...]) -> None:
            if name not in chosen:  # a layer that is used twice is chosen by its first use
                paths = _paths_by_channel(layer, arguments[0].sole)
                counts = _layer_counts(layer, paths, budgets[name], alpha, beta, task.generator)
                chosen[name] = _mask(layer, counts, task.generator)
            layer.weight.copy_(chosen[name])

        return before_forward

    skeleton = linear_skeleton(model, dense_masks(model))
    for name, _, layer in named_layers(skeleton):
        if name in budgets:
            layer.register_forward_pre_hook(choose(name))
    device = next(iter(parameters.values())).device
    with torch.no_grad():
        follow(skeleton, shape, device, lambda ones: Signal.of(ones * SMALLEST_INPUT))

    scores, owners = {}, weights_of(model)
    for name, parameter in parameters.items():
        if owners[name] != name:
            chosen[name] = _drawn(parameter.numel(), budgets[name], task.generator)
        elif name not in chosen:
            raise InputError(
                "npb must see every conv and linear layer called in the forward pass, but "
                f"{name} is not; freeze it with requires_grad_(False) if nothing uses it, or "
                "choose another criterion if attention does"
            )
        scores[name] = chosen[name].view(parameter.shape).to(parameter.device, torch.float32)
    return scores


def _paths_by_channel(layer: Layer, inputs: Tensor) -> np.ndarray:
    """Count the paths to each input channel, summed over pixels, up to a factor; (inputs,)."""
    channel = inputs.dim() - 1 if isinstance(layer, nn.Linear) else 1
    paths = inputs.movedim(channel, 0).flatten(1).sum(1)
    if not paths.isfinite().all():
        raise NumericsError(
            "the number of paths must stay below 10^550, but exceeds it; choose a shallower or "
            "narrower network"
        )
    return paths.cpu().numpy()


def _layer_counts(
    layer: Layer,
    paths: np.ndarray,
    budget: int,
    alpha: float,
    beta: float,
    generator: torch.Generator,
) -> Tensor:
    """Find kernel counts (groups, outputs of each, inputs of each); groups share equally."""
    groups, outputs, inputs, positions = _grid(layer)
    counts = np.empty((groups, outputs, inputs), dtype=np.int64)
    shares = budget // groups + (np.arange(groups) < budget % groups)
    for group, (share, reaching) in enumerate(
        zip(shares, paths.reshape(groups, inputs), strict=True)
    ):
        # Channels of equal gain are served in this order, so it is random.
        rows = torch.randperm(outputs, generator=generator, device="cpu").numpy()
        columns = torch.randperm(inputs, generator=generator, device="cpu").numpy()
        best = kernel_counts(
            reaching[columns], outputs, positions, int(share), alpha=alpha, beta=beta
        )
        counts[group][np.ix_(rows, columns)] = best
    return torch.from_numpy(counts)


def _mask(layer: Layer, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the weights of each kernel to keep; bool, of the weight's shape."""
    positions = _grid(layer)[3]
    draws = torch.rand(*counts.shape, positions, generator=generator, device="cpu")
    rank = draws.argsort(dim=-1).argsort(dim=-1)
    mask = rank < counts[..., None]  # (groups, outputs, inputs, positions)
    return from_outputs(layer, mask.flatten(0, 1))


def _grid(layer: Layer) -> tuple[int, int, int, int]:
    """Return (groups, outputs of each, inputs of each, weights of a kernel)."""
    groups = layer_groups(layer)
    outputs, inputs, positions = by_output(layer, layer.weight).shape
    return groups, outputs // groups, inputs, positions


def _drawn(size: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` positions uniformly; bool (size,)."""
    drawn = torch.zeros(size, dtype=torch.bool, device="cpu")
    drawn[torch.randperm(size, generator=generator, device="cpu")[:count]] = True
    return drawn
