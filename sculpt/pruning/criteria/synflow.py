"""SynFlow (Tanaka et al. 2020): iterative pruning by the flow of |w|, without data."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from sculpt.diagnostics.arguments import InputShape
from sculpt.diagnostics.layers import (
    check_no_embeddings,
    prunable_parameters,
    weighted_parameters,
    weights_of,
)
from sculpt.diagnostics.signal import Signal
from sculpt.diagnostics.topology import follow
from sculpt.errors import InputError, NumericsError
from sculpt.graph.copies import copy_network
from sculpt.pruning.rounds import Rounds, score_in_rounds
from sculpt.pruning.task import PruningTask
from sculpt.registry import CRITERIA

INPUT_SCALES = (1.0, 1e-300, 1e300)
FLOW_RANGE = (1e-290, 1e290)
"""Flows outside overflow or vanish in float64, so another input is tried."""


@CRITERIA.register("synflow")
def synflow(model: nn.Module, task: PruningTask, *, rounds: Rounds = 100) -> dict[str, Tensor]:
    """Score each weight by its share of the flow R = Σ outputs of |w| on an all-ones input.

    |w| · ∂R/∂|w| / R, in float64 (§6, Alg. 1), scored again after each of the rounds. A weight's
    score is the fraction of R that flows through it: over a layer that all of the flow passes,
    the scores add up to 1, and into a hidden unit flows what flows out of it (§4, Theorem 1).

    As in the original, biases take part with |b|, and max pooling stays. Deviation: norms and
    activations are left out. The original keeps them, in inference mode;
    with fresh statistics a norm divides by √(1 + 1e-5), and ReLU does nothing to non-negative
    signals. For tanh and SELU networks the linear part is what the theorems are about.

    Args:
        model: Conv and linear layers, and between them what a `Signal` passes.
        task: Its input shape must be known; no images are looked at.
        rounds: At least 1. Few rounds collapse layers (§5).

    Returns:
        The last round's scores, float64; 0 for what an earlier round pruned.

    Raises:
        InputError: the shape of the inputs is not known, or `rounds` is below 1.
        NumericsError: a weight is not finite, or the flow exceeds float64 at every input scale.
    """
    flow = FlowScore(model, task.required_shape("synflow"))
    return score_in_rounds(model, task, lambda _: flow(), rounds)


@CRITERIA.register("synflow_random_rounds")
def synflow_random_rounds(
    model: nn.Module,
    task: PruningTask,
    *,
    rounds: Rounds = 100,
    interval: Annotated[int, Field(ge=1, le=10_000)] = 5,
    last_random_round: Annotated[int, Field(ge=0, le=10_000)] = 80,
) -> dict[str, Tensor]:
    """Score as SynFlow does, but at random in some of the early rounds.

    The naive node-path method of Pham et al. 2022, *Understanding Pruning at Initialization: An
    Effective Node-Path Balancing Perspective* (ICLR 2023 submission). SynFlow alone concentrates
    its budget on few nodes with many paths. A random round prunes everywhere alike, which keeps
    more nodes alive.

    Args:
        model: Conv and linear layers, and between them what a `Signal` passes.
        task: Its input shape must be known; no images are looked at.
        rounds: At least 1.
        interval: At least 1: every `interval`-th round is random (the paper's Δt; our default).
        last_random_round: Later rounds are SynFlow's alone (the paper's t_max; our default), as is
            always the last of all rounds, which makes the mask; 0 is plain SynFlow.

    Returns:
        The last round's SynFlow scores, float64; 0 for what an earlier round pruned.

    Raises:
        InputError: the shape of the inputs is not known, or an option is outside its range.
        NumericsError: a weight is not finite, or the flow exceeds float64.
    """
    if interval < 1 or last_random_round < 0:
        raise InputError(
            "interval must be at least 1 and last_random_round at least 0, but got "
            f"interval {interval} and last_random_round {last_random_round}; "
            "last_random_round=0 makes no round random"
        )
    flow = FlowScore(model, task.required_shape("synflow_random_rounds"))

    def score(current: int) -> dict[str, Tensor]:
        if current % interval == 0 and current <= last_random_round and current < rounds:
            return _random_scores(model, task)
        return flow()

    return score_in_rounds(model, task, score, rounds)


def _random_scores(model: nn.Module, task: PruningTask) -> dict[str, Tensor]:
    """Draw scores from (0, 1]; 0 where a weight is 0 and could never score again."""
    return {
        name: task.draws(p.shape, torch.float64).to(p.device).where(p.detach() != 0, 0)
        for name, p in prunable_parameters(model).items()
    }


class Flow(Signal):
    """A signal as SynFlow defines it: biases add to it, and a maximum passes the largest on."""

    averages = False


class FlowScore:
    """Computes SynFlow scores of a model at its weights at the time of the call."""

    def __init__(self, model: nn.Module, input_shape: InputShape):
        check_no_embeddings(model, "SynFlow")
        self._parameters = weighted_parameters(model)
        self._weights = weights_of(model)
        self._linear = copy_network(model).double().eval().requires_grad_(True)
        self._linear_parameters = weighted_parameters(self._linear)
        self._scored = {name: self._linear_parameters[name] for name in prunable_parameters(model)}
        with torch.no_grad():
            for parameter in self._linear.parameters():
                parameter.abs_()
        self._shape = input_shape
        self._device = next(iter(self._parameters.values())).device

    def __call__(self) -> dict[str, Tensor]:
        """Compute |w| · ∂R/∂|w| / R by parameter name; all 0 if no flow reaches the outputs."""
        weights = list(self._scored.values())
        for scale in INPUT_SCALES:
            self._load(scale)
            with torch.enable_grad():
                flow = self._flow(scale)
            if FLOW_RANGE[0] < flow.item() < FLOW_RANGE[1]:
                break
        else:
            if flow.item() != 0:
                raise NumericsError(
                    "the flow of |w| must fit into float64 for some scale of the input, but it is "
                    f"{flow.item()} even for {scale}; check the initialisation for weights that "
                    "are not finite, extremely large or extremely small"
                )
            return {name: torch.zeros_like(weight) for name, weight in self._scored.items()}
        # Dividing by R here, not at the end, keeps the backward pass as far from overflow as the
        # forward pass. Input and R scale every path alike; a constant for each layer would not,
        # because shortcuts skip layers.
        gradients = torch.autograd.grad(
            flow, weights, 1 / flow.detach(), allow_unused=True, materialize_grads=True
        )
        return {
            name: weight.detach() * gradient
            for (name, weight), gradient in zip(self._scored.items(), gradients, strict=True)
        }

    def _flow(self, scale: float) -> Tensor:
        """R for an input of ones times a scale; differentiable."""
        signal = follow(self._linear, self._shape, self._device, lambda x: Flow.of(x * scale))
        return signal.sole.sum()

    @torch.no_grad()
    def _load(self, scale: float) -> None:
        """Copy the model's current |w|. Biases are inputs too, and are scaled like them."""
        for name, parameter in self._parameters.items():
            copied = self._linear_parameters[name].copy_(parameter).abs_()
            if self._weights[name] != name:
                copied.mul_(scale)
