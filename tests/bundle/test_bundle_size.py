"""Files of real masks are near the fewest bytes there can be, and simple enough for anybody."""

import json
from math import lgamma, log

import numpy as np
import pytest
import torch
from bundles import bits, masked_state
from safetensors import safe_open

import sculpt
from sculpt.bundle import write_bundle
from sculpt.models import build_network

BUDGET = 269_034


def fewest_bytes(model, masks):
    """Return 4 for each kept value, log2 C(N, n) / 8 for which they are, and all that is whole."""
    total = 0.0
    for name, tensor in model.state_dict().items():
        size, kept = tensor.numel(), int(masks[name].sum()) if name in masks else tensor.numel()
        nats = lgamma(size + 1) - lgamma(kept + 1) - lgamma(size - kept + 1)
        total += tensor.itemsize * kept + nats / log(2) / 8
    return total


def decode(path):
    with safe_open(path, framework="np") as file:
        texts = file.metadata()
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key[7:]: value for key, value in stored.items() if key.startswith("tensor/")}
    for name, shape in json.loads(texts["shapes"]).items():
        kept = np.ones(np.prod(shape), bool)
        if f"bitmask/{name}" in stored:
            kept = np.unpackbits(stored[f"bitmask/{name}"], count=kept.size).astype(bool)
        elif f"gaps/{name}" in stored:
            gaps = stored[f"gaps/{name}"]
            kept[:] = False
            kept[np.cumsum(gaps.astype(int) + (gaps < 255))[gaps < 255] - 1] = True
        state[name] = np.zeros(kept.size, stored[f"values/{name}"].dtype)
        state[name][kept] = stored[f"values/{name}"]
        state[name] = state[name].reshape(shape)
    return state


@pytest.mark.parametrize("widening", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_a_sculpted_resnet20_is_near_the_bound_and_read_without_sculpt(tmp_path, widening):
    model = build_network(
        "resnet", channels=3, classes=10, pixels=1024, widening=widening, blocks=3
    )
    sculpt.initialize(model, "ldi", seed=0)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    masks = sculpt.prune(model, budget=BUDGET, inputs=images)
    assert sum(int(mask.sum()) for mask in masks.values()) == BUDGET
    path = tmp_path / "network.safetensors"
    write_bundle(path, model, masks, {})
    size, bound = path.stat().st_size, fewest_bytes(model, masks)
    assert bound < size <= 1.12 * bound
    state = decode(path)
    expected = masked_state(model, masks)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].shape == tuple(tensor.shape)
        assert state[name].tobytes() == bits(tensor)
    with safe_open(path, framework="np") as file:
        codes = {key.split("/")[0] for key in file.keys()}  # noqa: SIM118
    assert {"bitmask", "gaps"} <= codes
