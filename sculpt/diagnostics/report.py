"""All diagnostics of a network in one call, without training it."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from sculpt.diagnostics.arguments import Inputs, check_inputs, material_weights, shape_of
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
from sculpt.errors import InputError
from sculpt.graph.copies import run_eagerly


def diagnose(model: nn.Module, masks: Masks | None, inputs: Inputs) -> dict[str, Any]:
    """Describe a network: layers, signal propagation, topology, cost.

    Args:
        model: Any module with conv or linear layers, its pruned weights at zero; it is not changed.
        masks: Bool, True = kept, keyed by parameter name, as `sculpt.prune` returns them; None for
            a dense network.
        inputs: Normalised images (N, ...) to take the Jacobian at, where the model is. A hundred
            are plenty for a convolutional network. Or a tuple or dict of the network's arguments,
            or whole numbers for embeddings, by which no Jacobian is taken.

    Returns:
        A dictionary that `json.dumps` takes:
        `layers`: per weight, in order of execution: name, shape, kept, density, kept_macs,
        effective_channels (outputs on a path), orthogonality ‖WWᵀ−I‖_F and the smallest value
        its mask allows (orthogonality_bound);
        `jacobian`: mean, std, min, max, condition and images of the singular values of the
        input-output Jacobian (condition None where the smallest is 0), or None;
        `effective`: nodes, parameters (weights) and log10_paths (None if there is no path), or None
        for a network that paths cannot be followed through;
        `left_out`: why `jacobian` or `effective` is None, one line each;
        `orthogonality_score`: the mean over the layers;
        `kept_parameters`: of all conv and linear weights and biases;
        `dense_macs`, `kept_macs`: per image;
        `disconnected`: whether no path leads from the input to the output, or None;
        `collapsed_layers`: names of the weights that are pruned completely.

    Raises:
        InputError: the masks do not fit the model, a pruned weight of it is not zero, the inputs
            are no tensor (N, ...) where it is, or it returns no logits.
        NumericsError: an input or a derivative is not finite.
    """
    material_weights(model)
    masks = dense_masks(model) if masks is None else check_applied(model, masks)
    with torch.inference_mode(False), run_eagerly(model):
        return _diagnose(model, masks, check_inputs(inputs, model, derivable=True))


def _diagnose(model: nn.Module, masks: Masks, inputs: Tensor) -> dict[str, Any]:
    """Describe a network whose masks and inputs are right; see `diagnose`."""
    orthogonality = layer_orthogonality(model)
    shape = shape_of(inputs)
    cost = measure_cost(model, shape)
    left_out = []
    jacobian = topology = None
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        jacobian = asdict(summarize_jacobian(jacobian_singular_values(model, inputs)))
    else:
        left_out.append("jacobian: it is taken at one float tensor, and the inputs are others")
    try:
        topology = measure_topology(model, masks, shape)
    except InputError as error:
        left_out.append(f"effective: {error}")
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
        "jacobian": jacobian,
        "effective": topology
        and {
            "nodes": topology.nodes,
            "parameters": topology.parameters,
            "log10_paths": topology.log10_paths,
        },
        "left_out": left_out,
        "orthogonality_score": orthogonality_score(orthogonality),
        "kept_parameters": kept_weights(masks),
        "dense_macs": cost.dense_macs,
        "kept_macs": cost.kept_macs(masks),
        "disconnected": topology and topology.log10_paths is None,
        "collapsed_layers": [layer["name"] for layer in layers if layer["kept"] == 0],
    }


def describe_layers(
    masks: Masks, cost: Cost, topology: Topology | None
) -> dict[str, dict[str, Any]]:
    """Describe the kept part of each weight and its cost, by name, in order of execution."""
    return {
        name: {
            "name": name,
            "shape": list(masks[name].shape),
            "kept": int(masks[name].sum()),
            "density": float(masks[name].double().mean()),
            "kept_macs": int(masks[name].sum()) * positions,
            "effective_channels": topology and topology.channels[name],
        }
        for name, positions in cost.positions.items()
    }
