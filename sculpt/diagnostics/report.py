"""All diagnostics of a network in one call, without training it."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import check_inputs, material_weights
from sculpt.diagnostics.cost import Cost, measure_cost
from sculpt.diagnostics.layers import (
    Masks,
    check_applied,
    dense_masks,
    kept_weights,
    weighted_layers,
)
from sculpt.diagnostics.orthogonality import layer_bound, layer_orthogonality, orthogonality_score
from sculpt.diagnostics.propagation import jacobian_singular_values, summarize_jacobian
from sculpt.diagnostics.topology import Topology, measure_topology


def diagnose(model: nn.Module, masks: Masks | None, inputs: Tensor) -> dict[str, Any]:
    """Describe a network: layers, signal propagation, topology, cost.

    Args:
        model: Any module with conv or linear layers, its pruned weights at zero; it is not changed.
        masks: Bool, True = kept, keyed by parameter name, as `sculpt.prune` returns them; None for
            a dense network.
        inputs: Normalised images (N, ...) to take the Jacobian at, where the model is. A hundred
            are plenty for a convolutional network.

    Returns:
        A dictionary that `json.dumps` takes:
        `layers`: per weight, in order of execution: name, shape, kept, density, kept_macs,
        effective_channels (outputs on a path), orthogonality ‖WWᵀ−I‖_F and the smallest value
        its mask allows (orthogonality_bound);
        `jacobian`: mean, std, min, max, condition and images of the singular values of the
        input-output Jacobian (condition None where the smallest is 0);
        `effective`: nodes, parameters (weights) and log10_paths (None if there is no path);
        `orthogonality_score`: the mean over the layers;
        `kept_parameters`: of all conv and linear weights and biases;
        `dense_macs`, `kept_macs`: per image;
        `disconnected`: whether no path leads from the input to the output;
        `collapsed_layers`: names of the weights that are pruned completely.

    Raises:
        InputError: the masks do not fit the model, a pruned weight of it is not zero, the inputs
            are no float tensor (N, ...) where it is, or no path can be followed through it.
        NumericsError: an input or a derivative is not finite.
    """
    material_weights(model)
    masks = _check_masks(model, masks)
    with torch.inference_mode(False):
        return _diagnose(model, masks, check_inputs(inputs, model, derivable=True))


def _diagnose(model: nn.Module, masks: Masks, inputs: Tensor) -> dict[str, Any]:
    """Describe a network whose masks and inputs are right; see `diagnose`."""
    orthogonality = layer_orthogonality(model)
    input_shape = tuple(inputs.shape[1:])
    jacobian = summarize_jacobian(jacobian_singular_values(model, inputs))
    cost = measure_cost(model, input_shape)
    topology = measure_topology(model, masks, input_shape)
    weighted = weighted_layers(model)
    layers = [
        described
        | {
            "orthogonality": orthogonality[name],
            "orthogonality_bound": layer_bound(weighted[name], masks[name]),
        }
        for name, described in describe_layers(masks, cost, topology).items()
    ]
    return {
        "layers": layers,
        "jacobian": asdict(jacobian),
        "effective": {
            "nodes": topology.nodes,
            "parameters": topology.parameters,
            "log10_paths": topology.log10_paths,
        },
        "orthogonality_score": orthogonality_score(orthogonality),
        "kept_parameters": kept_weights(masks),
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "disconnected": topology.log10_paths is None,
        "collapsed_layers": [layer["name"] for layer in layers if layer["kept"] == 0],
    }


def describe_layers(masks: Masks, cost: Cost, topology: Topology) -> dict[str, dict[str, Any]]:
    """Describe the kept part of each weight and its cost, by name, in order of execution."""
    return {
        name: {
            "name": name,
            "shape": list(masks[name].shape),
            "kept": int(masks[name].sum()),
            "density": float(masks[name].double().mean()),
            "kept_macs": int(masks[name].sum()) * positions,
            "effective_channels": topology.channels[name],
        }
        for name, positions in cost.positions.items()
    }


def _check_masks(model: nn.Module, masks: Masks | None) -> Masks:
    """Check masks, or make dense ones, and move them to the model's device."""
    if masks is None:
        return dense_masks(model)
    return check_applied(model, masks)
