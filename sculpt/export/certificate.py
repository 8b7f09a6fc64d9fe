"""The proof that a program computes what the network does: in float64, on real or random images."""

import copy

import torch
from torch import Tensor, nn

from sculpt.errors import ExportError
from sculpt.export.evaluation import evaluate_program
from sculpt.export.program import Program
from sculpt.pruning.masks import Masks, apply_masks

LARGEST = 1e-10
"""Of the difference in float64, as a share of the largest logit."""


def certify(model: nn.Module, masks: Masks, program: Program, images: Tensor) -> float:
    """Return how far a program's logits are from the network's, as a share of the largest.

    Args:
        model:
            Trained, on any device; it is not changed.
        masks:
            Keyed by parameter name.
        program:
            What is to be exported.
        images:
            (N, ...) to compare them on.

    Raises:
        ExportError: they differ by 1e-10 or more, or are not finite; nothing should be written.
    """
    network = copy.deepcopy(model).to("cpu", torch.float64).eval()
    apply_masks(network, {name: mask.cpu() for name, mask in masks.items()})
    inputs = images.detach().to("cpu", torch.float64)
    with torch.no_grad():
        expected = network(inputs).flatten(1)
    scale = expected.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    difference = float((evaluate_program(program, inputs) - expected).abs().max() / scale)
    if not difference < LARGEST:  # also where it is no number
        raise ExportError(
            f"what is exported must compute what the network does, to {LARGEST:g} in float64, but "
            f"the logits differ by {difference:.3g}; please report this, with the network"
        )
    return difference
