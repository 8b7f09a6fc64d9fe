"""A network written to a file comes back bit for bit, and a broken file is refused in words."""

import json
import os
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from sculpt.data import make_splits
from sculpt.data.digits import Digits
from sculpt.errors import InputError
from sculpt.export.weights import FORMAT, load_network, save_network
from sculpt.models.resnet import resnet
from sculpt.pruning.initializers import initialize
from sculpt.pruning.masks import apply_masks, dense_masks


def random_masks(model, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(mask.shape, generator=generator) < density
        for name, mask in dense_masks(model).items()
    }


def sparse_resnet(density=0.3, **options):
    model = resnet(1, 10, stem_width=3, blocks=1, **options)
    initialize(model, "variance_scaling", seed=0)
    masks = random_masks(model, density)
    apply_masks(model, masks)
    with torch.no_grad():  # batch-norm statistics and counters that are not the fresh ones
        model.train()(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    return model, masks


def equal_tensors(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(one[name], other[name])
        for name in one
    )


@pytest.fixture
def saved(tmp_path):
    """A file, and what was written to it."""
    model, masks = sparse_resnet()
    path = tmp_path / "network.safetensors"
    save_network(path, model, masks, {"trial": 3})
    return path, model, masks


@pytest.fixture
def contents(saved):
    """The raw header and tensors of a sound file."""
    with safe_open(saved[0], framework="pt") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("density", [0.0, 0.001, 0.3, 1.0])
def test_state_and_masks_come_back_bit_for_bit(tmp_path, density):
    model, masks = sparse_resnet(density)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert {0.0: kept == 0, 1.0: all(mask.all() for mask in masks.values())}.get(density, kept > 0)
    save_network(tmp_path / "n", model, masks, {})
    state, loaded_masks, _ = load_network(tmp_path / "n")
    assert equal_tensors(state, dict(model.state_dict()))
    assert equal_tensors(loaded_masks, masks)
    assert state["stem.norm.num_batches_tracked"].shape == ()
    assert state["stem.norm.num_batches_tracked"] == 1


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 17, 63, 65])
def test_sizes_that_do_not_fill_a_byte(tmp_path, size):
    model = nn.Linear(size, 3)
    masks = random_masks(model, 0.5, seed=size)
    apply_masks(model, masks)
    save_network(tmp_path / "n", model, masks, {})
    state, loaded_masks, _ = load_network(tmp_path / "n")
    assert equal_tensors(state, dict(model.state_dict()))
    assert equal_tensors(loaded_masks, masks)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_than_float32(tmp_path, dtype):
    model, masks = sparse_resnet()
    model.to(dtype)
    save_network(tmp_path / "n", model, masks, {})
    state, loaded_masks, _ = load_network(tmp_path / "n")
    assert state["stem.conv.weight"].dtype == dtype
    assert equal_tensors(state, dict(model.state_dict()))
    assert equal_tensors(loaded_masks, masks)


def test_a_kept_zero_is_still_kept(tmp_path):
    """Biases start at zero: the mask says what is kept, the values do not."""
    model = nn.Linear(5, 4)
    nn.init.zeros_(model.bias)
    masks = dense_masks(model)
    save_network(tmp_path / "n", model, masks, {})
    _, loaded_masks, _ = load_network(tmp_path / "n")
    assert equal_tensors(loaded_masks, masks)


def test_odd_values_come_back(tmp_path):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.0, 1e-45, 3.4e38], [torch.inf, -torch.inf, -1e-38]]))
    save_network(tmp_path / "n", model, dense_masks(model), {})
    state, _, _ = load_network(tmp_path / "n")
    assert torch.equal(state["weight"].view(torch.int32), model.weight.detach().view(torch.int32))


def test_channels_last_networks_come_back(tmp_path):
    """The layout a trial trains in must not permute the kept values."""
    model, masks = sparse_resnet()
    reference = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(memory_format=torch.channels_last)
    masks = {
        name: mask.to(memory_format=torch.channels_last) if mask.dim() == 4 else mask
        for name, mask in masks.items()
    }
    save_network(tmp_path / "n", model, masks, {})
    state, loaded_masks, _ = load_network(tmp_path / "n")
    assert equal_tensors(state, reference)
    assert equal_tensors(loaded_masks, masks)
    save_network(tmp_path / "n", model, {}, {})  # each tensor whole
    state, loaded_masks, _ = load_network(tmp_path / "n")
    assert equal_tensors(state, reference)
    assert loaded_masks == {}


def test_a_fresh_network_computes_the_same_logits(saved):
    path, model, _ = saved
    fresh = resnet(1, 10, stem_width=3, blocks=1)
    images = make_splits(Digits().read(), train_images=100).validation.inputs(slice(None))
    with torch.no_grad():
        expected = model.eval()(images)
        assert not torch.equal(fresh.eval()(images), expected)
        fresh.load_state_dict(load_network(path)[0])
        assert torch.equal(fresh(images), expected)


def test_metadata_comes_back_as_it_was(tmp_path):
    model = nn.Linear(2, 2)
    metadata = {
        "study": {"model": {"widening": 2.5, "shortcut": None}, "values": [1, -2, 1e-4, True]},
        "words": 'größer ≥ 1 "quoted"\n',
        "format": "not ours",
        "empty": {},
    }
    save_network(tmp_path / "n", model, dense_masks(model), metadata)
    assert load_network(tmp_path / "n")[2] == metadata


def test_saving_leaves_the_network_alone(saved):
    _, model, masks = saved
    state = {name: value.clone() for name, value in model.state_dict().items()}
    copies = {name: mask.clone() for name, mask in masks.items()}
    save_network(saved[0].with_name("again"), model, masks, {})
    assert equal_tensors(state, dict(model.state_dict()))
    assert equal_tensors(copies, masks)


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_a_file_costs_four_bytes_a_kept_weight_and_a_bit_a_weight(tmp_path, density):
    model = nn.Linear(300, 400)
    masks = random_masks(model, density)
    apply_masks(model, masks)
    save_network(tmp_path / "n", model, masks, {})
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    size = os.path.getsize(tmp_path / "n")
    assert 4 * kept + total / 8 <= size <= 4 * kept + total / 8 + 1000  # the header


def refused(path):
    """The one message with which a file is refused."""
    with pytest.raises(InputError) as caught:
        load_network(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: must be ")
    assert "\n" not in message
    return message


def test_a_file_that_is_not_there(tmp_path):
    assert "readable" in refused(tmp_path / "nothing")
    assert "readable" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"x", b"{}" * 100, b"\x80\x04pickle", b"\xff" * 64])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "n").write_bytes(content)
    assert "readable safetensors file" in refused(tmp_path / "n")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "sculpt-weights-9"}])
def test_a_foreign_safetensors_file(tmp_path, metadata):
    save_file({"weight": torch.ones(2)}, tmp_path / "n", metadata=metadata)
    message = refused(tmp_path / "n")
    assert FORMAT in message
    assert repr((metadata or {}).get("format")) in message


def test_a_file_cut_short_anywhere(saved, tmp_path):
    whole = saved[0].read_bytes()
    for length in [*range(0, 64), *range(64, len(whole), 211), len(whole) - 1]:
        (tmp_path / "n").write_bytes(whole[:length])
        assert "readable safetensors file" in refused(tmp_path / "n")


def test_a_damaged_header_never_raises_anything_else(saved, tmp_path):
    """Single bytes of the header are changed; what still loads must at least be whole."""
    path, model, _ = saved
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    draw = random.Random(0)
    messages = []
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[draw.randrange(header)] ^= draw.randrange(1, 256)
        (tmp_path / "n").write_bytes(damaged)
        try:
            state, _, _ = load_network(tmp_path / "n")
        except InputError as error:
            messages.append(str(error))
        else:
            assert len(state) == len(model.state_dict())
    assert any("is damaged" in message for message in messages)
    assert any("readable safetensors file" in message for message in messages)


NAME = "stages.1.0.first.conv.weight"  # (6, 3, 3, 3): 162 weights, 21 bytes


def with_shape(header, shape):
    return header | {"shapes": json.dumps(json.loads(header["shapes"]) | {NAME: shape})}


def without(mapping, key):
    return {name: value for name, value in mapping.items() if name != key}


def test_the_damage_below_is_done_to_a_real_parameter(contents):
    header, tensors = contents
    assert json.loads(header["shapes"])[NAME] == [6, 3, 3, 3]
    assert tensors[f"mask/{NAME}"].shape == (21,)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda h, t: (without(h, "shapes"), t), id="no shapes"),
        pytest.param(lambda h, t: (without(h, "metadata"), t), id="no metadata"),
        pytest.param(lambda h, t: (h | {"shapes": "{"}, t), id="shapes are not JSON"),
        pytest.param(lambda h, t: (h | {"metadata": "{"}, t), id="metadata is not JSON"),
        pytest.param(lambda h, t: (h | {"shapes": "[]"}, t), id="shapes are a list"),
        pytest.param(lambda h, t: (h | {"metadata": "3"}, t), id="metadata is a number"),
        pytest.param(lambda h, t: (with_shape(h, [6, 3, 3]), t), id="shape too small"),
        pytest.param(lambda h, t: (with_shape(h, [6, 3, 3, 4]), t), id="shape too large"),
        pytest.param(lambda h, t: (with_shape(h, [10**12]), t), id="shape enormous"),
        pytest.param(lambda h, t: (with_shape(h, [-6, 3, 3, -3]), t), id="shape negative"),
        pytest.param(lambda h, t: (with_shape(h, [162.0]), t), id="shape of a float"),
        pytest.param(lambda h, t: (with_shape(h, "162"), t), id="shape is text"),
        pytest.param(lambda h, t: (with_shape(h, None), t), id="shape is null"),
        pytest.param(lambda h, t: (h, without(t, f"values/{NAME}")), id="no values"),
        pytest.param(lambda h, t: (h, without(t, f"mask/{NAME}")), id="no mask"),
        pytest.param(
            lambda h, t: (h, t | {f"mask/{NAME}": t[f"mask/{NAME}"][:-1]}), id="mask too short"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"mask/{NAME}": t[f"mask/{NAME}"].repeat(2)}), id="mask too long"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"mask/{NAME}": t[f"mask/{NAME}"].float()}), id="mask of floats"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"mask/{NAME}": t[f"mask/{NAME}"] | 255}), id="mask keeps more"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"mask/{NAME}": t[f"mask/{NAME}"] & 0}), id="mask keeps fewer"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"values/{NAME}": t[f"values/{NAME}"][:-1]}), id="values too few"
        ),
        pytest.param(
            lambda h, t: (h, t | {f"values/{NAME}": t[f"values/{NAME}"].repeat(2)}),
            id="values too many",
        ),
        pytest.param(
            lambda h, t: (h, t | {f"values/{NAME}": t[f"values/{NAME}"][None]}), id="values 2-d"
        ),
        pytest.param(lambda h, t: (h, t | {"stray": torch.ones(2)}), id="a stray tensor"),
        pytest.param(
            lambda h, t: (h, t | {"values/stray": torch.ones(2)}), id="values without a shape"
        ),
    ],
)
def test_a_file_whose_parts_do_not_fit(tmp_path, contents, damage):
    path = tmp_path / "damaged"
    header, tensors = contents
    save_file(tensors, path, metadata=header)
    load_network(path)  # sound until damaged
    header, tensors = damage(header, tensors)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=header)
    assert "damaged" in refused(path)
