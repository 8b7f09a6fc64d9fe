"""Training a masked network without the channels that no path uses.

The compact network is the same function and takes the same steps. The parameters left out of it
have a gradient of exactly zero in the full network, where weight decay and momentum still move
them: all by one factor, because such steps are linear in the weights. The compact network has that
factor as one more parameter.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.arithmetic import relative_difference
from sculpt.compaction.calls import read_calls
from sculpt.compaction.liveness import find_liveness
from sculpt.compaction.narrowing import Narrowing, Slice, named_tensors
from sculpt.compaction.plan import find_present, plan_layers
from sculpt.diagnostics.cost import measure_cost
from sculpt.diagnostics.layers import Masks
from sculpt.errors import CompactionError
from sculpt.graph.calls import left_whole
from sculpt.graph.copies import copy_network
from sculpt.pruning.masks import apply_masks

BLOCK = 16
"""Channels that convolutions compute at once, in bfloat16 on AVX-512 as on tensor cores: 57 of 64
took 0.93 of the time, 48 took 0.56 (both sides of a 3×3, 32×32, 2 cores)."""
LEAST_SAVING = 0.05
"""Share of the multiply-accumulates; with less, the rest of a step outweighs it."""
MOST_DIFFERENCE = 1e-10
"""Relative, of the logits in float64. Rounding makes 1e-14 of it."""


class CompactNetwork(nn.Module):
    """A narrow network, and the factor by which training shrinks the parameters left out of it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        like = next(network.parameters())
        self.decay = nn.Parameter(torch.ones((), dtype=like.dtype, device=like.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs (N, ...) to logits (N, classes)."""
        # An optimiser skips parameters without a gradient, and moves those with one of zero.
        return self.network(inputs) + 0 * self.decay


@dataclass(frozen=True, eq=False)
class Compaction:
    """A network to train in place of a larger one that computes the same."""

    model: nn.Module
    """Compact and trainable, a copy: the original stays as it is until `restore`."""
    masks: Masks
    """Masks of the compact network, keyed by its parameter names."""
    plan: dict[str, Any]
    """For the record: `dense_macs` (multiply-accumulates for one image) and `macs` (after, those of
    gathering and scattering included), `saving` (a share), `layers` (see `LayerPlan.describe`; a
    depthwise convolution has the channels that it reads), `removed_parameters` (kept by the masks,
    but on no path) and, if there are any, `left_whole` (calls around which all channels stay)."""
    original: nn.Module = field(repr=False)
    slices: dict[str, Slice] = field(repr=False)
    """Origin of the compact network's parameters and buffers, keyed by their names."""
    initial: dict[str, Tensor] = field(repr=False)
    """Masked parameters of the original from which something was removed."""

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
        for name, part in self.slices.items():
            part.write(whole[part.name], trained[name])


def compact_where_it_pays(
    model: nn.Module, masks: Masks, inputs: Tensor
) -> tuple[Compaction | None, dict[str, object]]:
    """Compact a network that is about to be trained, if that saves work and changes nothing.

    Both networks must agree on the inputs, a few, (N, ...); see `narrow_for_training`.

    Returns:
        The compaction, or None; and the decision for the record: `used`, `reason` (None, or why
        not), and if a plan could be made also its `plan` and `difference`, relative, of both
        networks' logits in float64 (None if not measured).
    """
    difference = reason = None
    try:
        found = narrow_for_training(model, masks, inputs, block=BLOCK)
        if found.plan["saving"] < LEAST_SAVING:
            reason = f"it saves only {found.plan['saving']:.1%} of the work"
        else:
            difference = largest_difference(model, masks, found, inputs)
            if not difference <= MOST_DIFFERENCE:
                reason = "the networks do not agree"
    except CompactionError as error:
        return None, {"used": False, "reason": str(error)}
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        if "memory" in str(error):
            raise
        # A foreign forward pass may ask for what a narrow copy has not: a type, or an attribute.
        reason = f"a narrow copy cannot be run ({type(error).__name__}: {error!s:.200})"
        return None, {"used": False, "reason": reason}
    used = reason is None
    decision = {**found.plan, "used": used, "difference": difference, "reason": reason}
    return found if used else None, decision


def narrow_for_training(
    model: nn.Module, masks: Masks, example_inputs: Tensor, *, block: int = 1
) -> Compaction:
    """Copy a network without the channels that no path of kept weights uses.

    It is exact for training by gradient descent with momentum and weight decay, whatever the loss:
    see `liveness` for why. Streams that are wide in some places only keep their width there, and
    narrow layers on them gather and scatter channels where that pays. Sums are taken in another
    order, though, and rounding errors differ; a channel that is a bias alone, or else constant, in
    front of a batch norm and a ReLU has no other sign than theirs.

    Args:
        model: On any device. Batch norms must not have been trained for much to be removed.
        masks: Keyed by parameter name.
        example_inputs: (N, ...); only the shape counts.
        block: Layers keep a multiple of this many channels, where they have as many: processors
            compute whole blocks in the time of unfinished ones.

    Raises:
        CompactionError: the forward pass cannot be traced, or none of its layers is understood.
        InputError: the masks do not fit the model.
    """
    narrowing = Narrowing(model, masks)
    calls = read_calls(model, masks, example_inputs)
    liveness = find_liveness(calls, masks)
    present = find_present(calls, liveness, block)
    plans = plan_layers(calls, liveness, present, block)
    if not plans:
        raise CompactionError(
            "a network must have conv (of one group) or linear layers, used once, to be "
            f"compacted, but {type(model).__name__} has none; train it without compaction"
        )
    narrowing.apply(plans, calls, present)
    compact = CompactNetwork(narrowing.network)
    slices = narrowing.slices(compact)
    compact_masks = {
        name: part.of(masks[part.name]) for name, part in slices.items() if part.name in masks
    }

    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ours = {
        name: p
        for name, p in compact.named_parameters()
        if name in slices and slices[name].name in trainable
    }
    covered = Counter({slices[name].name: p.numel() for name, p in ours.items()})
    initial = {
        name: parameter.detach() * masks.get(name, 1)
        for name, parameter in trainable.items()
        if covered[name] < parameter.numel()
    }

    shape = tuple(example_inputs.shape[1:])
    dense = measure_cost(model, shape).dense_macs
    macs = measure_cost(compact, shape).dense_macs + sum(plan.copying_macs for plan in plans)
    plan = {
        "dense_macs": dense,
        "macs": macs,
        "saving": 1 - macs / dense,
        "layers": [layer.describe() for layer in plans],
        "removed_parameters": _kept(trainable, masks) - _kept(ours, compact_masks),
    }
    if whole := left_whole(calls, range(len(calls))):
        plan["left_whole"] = whole
    return Compaction(compact, compact_masks, plan, model, slices, initial)


def _kept(parameters: dict[str, nn.Parameter], masks: Masks) -> int:
    """Count parameters, of those with a mask what it keeps."""
    return sum(
        int(masks[name].sum()) if name in masks else parameter.numel()
        for name, parameter in parameters.items()
    )


@torch.no_grad()
def largest_difference(
    model: nn.Module, masks: Masks, compaction: Compaction, inputs: Tensor
) -> float:
    """Return how far the logits of a compact network are from those of the original, untrained.

    In float64, in training and in evaluation mode, on two or more inputs; see
    `relative_difference`. Both networks are copied, and not changed.
    """
    full = copy_network(model)
    apply_masks(full, masks)
    networks = [full.double(), copy_network(compaction.model).double()]
    largest = 0.0
    # Training first, so that evaluation reads statistics that it moved.
    for training in (True, False):
        logits = []
        for network in networks:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                logits.append(network.train(training)(inputs.double()))
        largest = max(largest, relative_difference(*logits))
    return largest
