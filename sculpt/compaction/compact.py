"""Removing, before training, what no path of a masked network uses.

The compact network is the same function and takes the same steps. What is left out of it has a
gradient of exactly zero in the full network, where weight decay and momentum still move it: all
of it by one factor, because such steps are linear in the weights. The compact network has that
factor as one more parameter.
"""

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor, nn

from sculpt.compaction.flow import analyse
from sculpt.compaction.narrowing import Narrowing, Part, named_tensors
from sculpt.compaction.plan import LayerEntry, find_present, plan_layers
from sculpt.compaction.steps import read_steps
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Masks
from sculpt.errors import CompactionError
from sculpt.pruning.masks import apply_masks


class CompactNetwork(nn.Module):
    """A narrow network, and the factor by which training shrinks what was left out of it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        like = next(network.parameters())
        self.decay = nn.Parameter(torch.ones((), dtype=like.dtype, device=like.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (N, ...) to logits (N, classes)."""
        # An optimiser passes over what has no gradient, and moves what has one of zero.
        return self.network(inputs) + 0 * self.decay


class Plan(TypedDict):
    """What a compaction removes."""

    dense_macs: int
    """Multiply-accumulates for one image, before."""
    macs: int
    """After, those of gathering and scattering included."""
    saving: float
    """Share of them that is saved."""
    layers: list[LayerEntry]
    removed_parameters: int
    """Which the masks had kept in vain."""


@dataclass(frozen=True, eq=False)
class Compaction:
    """A network to train in the place of a larger one that computes the same."""

    model: nn.Module
    """Compact, trainable, a copy: the original stays as it is until `restore`."""
    masks: Masks
    """Of the compact network, keyed by its parameter names."""
    plan: Plan
    original: nn.Module = field(repr=False)
    parts: dict[str, Part] = field(repr=False)
    """Where the compact network's parameters and buffers come from."""
    initial: dict[str, Tensor] = field(repr=False)
    """The original's parameters, masked, of which something was removed."""

    @torch.no_grad()
    def restore(self) -> None:
        """Write the trained values back into the original, in place; may be called repeatedly.

        Every parameter is then what training the original would have made of it, if one
        optimiser setting held for all. Running statistics of channels that nothing reads
        are left as they were, or are those of zeros.
        """
        whole, trained = named_tensors(self.original), named_tensors(self.model)
        for name, values in self.initial.items():
            whole[name].copy_(values * trained["decay"])
        for name, part in self.parts.items():
            part.write(whole[part.name], trained[name])


def compact(
    model: nn.Module, masks: Masks, example_inputs: Tensor, *, block: int = 1
) -> Compaction:
    """Return a copy of a network without the channels that no path of kept weights uses.

    It is exact for training by gradient descent with momentum and weight decay, whatever the
    loss: see `flow` for why. Streams that are wide in some places only keep their width there,
    and narrow layers on them gather and scatter channels where that pays. Sums are taken in
    another order, though, and rounding errors differ; a channel that is a bias alone, or else
    constant, in front of a batch norm and a ReLU has no other sign than theirs.

    Args:
        model: On any device. Batch norms must not have been trained for much to be removed.
        masks: Keyed by parameter name.
        example_inputs: (N, ...), of which only the shape counts.
        block: Layers keep a multiple of this many channels, where they have as many: processors
            compute whole blocks in the time of unfinished ones.

    Raises:
        CompactionError: the forward pass cannot be traced, or no layer of it is understood.
        InputError: the masks do not fit the model.
    """
    narrowing = Narrowing(model)
    apply_masks(narrowing.network, masks)
    steps = read_steps(model, masks, example_inputs)
    flows = analyse(steps, masks)
    present = find_present(steps, flows, block)
    plans = plan_layers(steps, flows, present, block)
    if not plans:
        raise CompactionError(
            "a network must have conv (of one group) or linear layers, used once, to be "
            f"compacted, but {type(model).__name__} has none; train it without compaction"
        )
    narrowing.apply(plans, steps, present)
    compact_model = CompactNetwork(narrowing.network)
    parts = narrowing.parts(compact_model)
    compact_masks = {
        name: part.of(masks[part.name]) for name, part in parts.items() if part.name in masks
    }

    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    covered: Counter[str] = Counter()
    removed = sum(
        int(masks[name].sum()) if name in masks else parameter.numel()
        for name, parameter in trainable.items()
    )
    for name, tensor in compact_model.named_parameters():
        if name in parts and parts[name].name in trainable:
            covered[parts[name].name] += tensor.numel()
            removed -= int(compact_masks[name].sum()) if name in compact_masks else tensor.numel()
    initial = {
        name: parameter.detach() * masks.get(name, 1)
        for name, parameter in trainable.items()
        if covered[name] < parameter.numel()
    }

    shape = tuple(example_inputs.shape[1:])
    dense = measure_cost(model, shape).dense_macs
    macs = measure_cost(compact_model, shape).dense_macs + sum(p.selection_macs for p in plans)
    plan: Plan = {
        "dense_macs": dense,
        "macs": macs,
        "saving": 1 - macs / dense,
        "layers": [layer.describe() for layer in plans],
        "removed_parameters": removed,
    }
    return Compaction(compact_model, compact_masks, plan, model, parts, initial)


@torch.no_grad()
def largest_difference(
    model: nn.Module, masks: Masks, compaction: Compaction, inputs: Tensor
) -> float:
    """Return how far the logits of a compact network are from those of the original.

    In float64, in training and in evaluation mode, relative to the largest logit. Both networks
    are copied, and not changed.

    Args:
        model: The original, not trained since it was compacted.
        masks: Of the original.
        compaction: Of the original.
        inputs: (N, ...), two or more.
    """
    full = copy.deepcopy(model)
    apply_masks(full, masks)
    networks = [full.double(), copy.deepcopy(compaction.model).double()]
    largest = 0.0
    # Training first, so that evaluation reads statistics that it moved.
    for training in (True, False):
        logits = []
        for network in networks:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                logits.append(network.train(training)(inputs.double()))
        scale = logits[0].abs().max().clamp(min=torch.finfo(torch.float64).tiny)
        largest = max(largest, float((logits[0] - logits[1]).abs().max() / scale))
    return largest
