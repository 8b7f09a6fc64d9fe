"""A network written to a file comes back bit for bit, and what cannot be written is said."""

import copy
from functools import partial

import pytest
import torch
from bundles import bits, masked_state, same_bits, sparse_resnet
from networks import random_masks
from safetensors import safe_open
from torch import nn

from sculpt.bundle import FORMAT, is_bundle, read_bundle, write_bundle
from sculpt.errors import InputError
from sculpt.models import build_network
from sculpt.pruning.masks import apply_masks, dense_masks
from sculpt.registry import MODELS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.safetensors"


def assert_comes_back(path, model, masks):
    write_bundle(path, model, masks, {"trial": 3})
    assert is_bundle(path)
    assert is_bundle(str(path))
    found = read_bundle(path)
    assert same_bits(found.state, masked_state(model, masks))
    assert same_bits(found.masks, masks)
    assert found.metadata == {"trial": 3}


@pytest.mark.parametrize("density", [0.0, 0.001, 0.03, 0.3, 1.0])
def test_state_and_masks_come_back_bit_for_bit(path, density):
    model, masks = sparse_resnet(density)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert {0.0: kept == 0, 1.0: all(mask.all() for mask in masks.values())}.get(density, kept > 0)
    assert_comes_back(path, model, masks)
    assert read_bundle(path).state["stem.norm.num_batches_tracked"] == torch.tensor(1)


@pytest.mark.parametrize("family", MODELS.names())
def test_networks_of_every_family_come_back(path, family):
    torch.manual_seed(0)
    narrow = {"widening": 0.125} if family == "vgg16" else {}
    build = partial(build_network, family, channels=3, classes=5, pixels=64, **narrow)
    model = build()
    masks = random_masks(model, 0.02)
    name = next(name for name, mask in masks.items() if mask.dim() == 1)
    masks[name].zero_()  # biases may be pruned, too
    apply_masks(model, masks)
    assert_comes_back(path, model, masks)
    fresh = build().eval()
    side = 32 if family == "vgg16" else 8
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = model.eval()(images)
        assert not torch.equal(fresh(images), expected)
        fresh.load_state_dict(read_bundle(path).state)
        assert torch.equal(fresh(images), expected)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 15, 16, 17, 63, 65, 254, 255, 256, 511])
def test_sizes_that_do_not_fill_a_byte(path, size):
    for density in (0.5, 2 / size):
        model = nn.Linear(size, 3)
        masks = random_masks(model, density, seed=size)
        apply_masks(model, masks)
        assert_comes_back(path, model, masks)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types_than_float32(path, dtype):
    model, masks = sparse_resnet()
    model.to(dtype)
    assert_comes_back(path, model, masks)
    assert read_bundle(path).state["stem.conv.weight"].dtype == dtype


@pytest.mark.parametrize("kind", ["other types", "zero biases", "diverged"])
def test_states_of_other_kinds_come_back(path, kind):
    model = nn.Linear(3, 2)
    masks = dense_masks(model)
    if kind == "other types":
        for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
            model.register_buffer(f"kind_{str(dtype)[6:]}", torch.tensor([1, 0, 1], dtype=dtype))
        model.register_buffer("none", torch.empty(0, 3))
        model.register_buffer("number", torch.tensor(1.5))
    if kind == "zero biases":  # the mask says what is kept, the values do not
        nn.init.zeros_(model.bias)
    if kind == "diverged":  # infinity times a mask's zero is NaN
        masks = random_masks(model, 0.5)
        nn.init.constant_(model.weight, -torch.inf)
        apply_masks(model, masks)
        assert model.weight[~masks["weight"]].isnan().all()
    assert_comes_back(path, model, masks)
    assert read_bundle(path).not_finite == (["weight"] if kind == "diverged" else [])


def test_odd_values_come_back(path):
    model = nn.Linear(3, 2)
    odd = [[-0.0, 1e-45, 3.4e38], [torch.inf, torch.nan, -1e-38]]
    with torch.no_grad():
        model.weight.copy_(torch.tensor(odd))
        model.weight.view(torch.int32)[1, 0] = 0x7F812345  # a NaN of its own kind
    write_bundle(path, model, dense_masks(model), {})
    found = read_bundle(path)
    assert bits(found.state["weight"]) == bits(model.weight)
    assert found.not_finite == ["weight"]


def test_pruned_weights_that_are_negative_zeros(path):
    """-1 times a mask's zero is -0, and comes back as 0."""
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(-1)
    masks = {"weight": torch.zeros(2, 3, dtype=torch.bool), "bias": dense_masks(model)["bias"]}
    apply_masks(model, masks)
    assert bits(model.weight) != bytes(24)
    write_bundle(path, model, masks, {})
    assert bits(read_bundle(path).state["weight"]) == bytes(24)


def test_channels_last_networks_come_back(path):
    """The layout a trial trains in must not permute the kept values."""
    model, masks = sparse_resnet()
    reference = {name: value.clone() for name, value in masked_state(model, masks).items()}
    model.to(memory_format=torch.channels_last)
    masks = {
        name: mask.to(memory_format=torch.channels_last) if mask.dim() == 4 else mask
        for name, mask in masks.items()
    }
    for given in (masks, {}):  # and each tensor whole
        assert_comes_back(path, model, given)
        state = read_bundle(path).state
        assert all(torch.equal(state[name], reference[name]) for name in reference)


def test_metadata_comes_back_as_it_was(path):
    model = nn.Linear(2, 2)
    metadata = {
        "study": {"model": {"widening": 2.5, "shortcut": None}, "values": [1, -2, 1e-4, True]},
        "words": 'größer ≥ 1 "quoted"\n',
        "format": "not ours",
        "empty": {},
    }
    write_bundle(path, model, dense_masks(model), metadata)
    assert read_bundle(path).metadata == metadata


def test_the_network_the_masks_and_the_file_are_left_alone(path):
    model, masks = sparse_resnet()
    state, copies = copy.deepcopy(model.state_dict()), copy.deepcopy(masks)
    write_bundle(path, model, masks, {})
    assert same_bits(state, model.state_dict())
    assert same_bits(copies, masks)
    content = path.read_bytes()
    for tensor in read_bundle(path).state.values():  # whose memory is not the file's
        tensor.fill_(7)
    assert path.read_bytes() == content
    write_bundle(path, model, masks, {})
    assert path.read_bytes() == content


def test_it_is_a_safetensors_file(path):
    model, masks = sparse_resnet(0.05)
    masks["stem.conv.weight"].fill_(True)  # of which some are kept zeros
    masks["stem.conv.weight"].view(-1)[::3] = False
    apply_masks(model, masks)
    write_bundle(path, model, masks, {"a": 1})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == FORMAT
        assert file.metadata()["metadata"] == '{"a": 1}'
        name = "stages.2.0.first.conv.weight"
        values = file.get_tensor(f"values/{name}")
        assert bits(values) == bits(model.state_dict()[name][masks[name]])
        kinds = {key.split("/")[0] for key in file.keys()}  # noqa: SIM118
    assert kinds == {"values", "bitmask", "gaps", "tensor"}


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"anything": 1}


def named(name, dtype=torch.float32):
    model = nn.Module()
    model.register_parameter(name, nn.Parameter(torch.ones(2, dtype=dtype)))
    return model


@pytest.mark.parametrize(
    ("model", "masks", "metadata", "message"),
    [
        (nn.Linear(2, 3), {"wait": torch.ones(3, 2)}, {}, "it has none called 'wait'"),
        (nn.Linear(2, 3), {"weight": torch.ones(3, 2)}, {}, "must be bool .* got torch.float32"),
        (nn.Linear(2, 3), {"weight": torch.ones(2).bool()}, {}, r"of shape \(3, 2\), .* \(2,\)"),
        (nn.Linear(2, 3), {"weight": torch.zeros(3, 2).bool()}, {}, "must be 0.*apply_masks"),
        (nn.Linear(2, 3), {}, {"a": float("nan")}, "metadata .* must be a mapping as JSON"),
        (nn.Linear(2, 3), {}, {"a": {1, 2}}, "metadata .* must be a mapping as JSON"),
        (nn.Linear(2, 3), {}, {1: 2, "1": 3}, "a key is given twice"),
        (nn.Linear(2, 3), {}, [1], "not a mapping"),
        (nn.Linear(2, 3), {}, {"a": "x" * 2**24}, "header .* at most .* shorten the metadata"),
        (named("weight", torch.complex64), {}, {}, "weight .* is torch.complex64"),
        (Extra(2, 3), {}, {}, "_extra_state of the model's state is dict"),
        (named("a/b"), {}, {}, "called like layer.weight, not 'a/b'; rename the layer"),
        (named("a\nb"), {}, {}, "called like layer.weight"),
    ],
)
def test_what_cannot_be_written(path, model, masks, metadata, message):
    path.write_bytes(b"before")
    with pytest.raises(InputError, match=message):
        write_bundle(path, model, masks, metadata)
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_a_mask_of_nothing_cannot_be_written(path):
    model = nn.Linear(0, 3)
    with pytest.raises(InputError, match=r"lengths from 1 to .*, but weight has \(3, 0\)"):
        write_bundle(path, model, dense_masks(model), {})


def test_nested_metadata(path):
    model = nn.Linear(2, 2)

    def nested(depth):
        deep = {}
        for _ in range(depth):
            deep = {"deeper": deep}
        return deep

    write_bundle(path, model, {}, nested(60))
    assert read_bundle(path).metadata == nested(60)
    for depth in (70, 5000):
        with pytest.raises(InputError, match="must be a mapping as JSON"):
            write_bundle(path, model, {}, nested(depth))
