"""Mutated files: either one InputError, or the network that was written."""

import copy
import json

import pytest
import torch
from bundles import put_together, same_bits, take_apart
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import random_masks
from torch import nn

from sculpt.bundle import read_bundle, write_bundle
from sculpt.errors import InputError
from sculpt.pruning.masks import apply_masks

EXAMPLES = settings(
    max_examples=600,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 8, 2**31, 2**63, -1, 1e308])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["F32", "U8", "BF16", "BOOL", "../x", "/x", "gaps/0.weight", "{}", "[[[["]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small file with every code and several types: its content, and what is in it."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(40, 30))
    model.register_buffer("brief", torch.ones(3, dtype=torch.bfloat16))
    model.register_buffer("truth", torch.tensor([True, False]))
    masks = random_masks(model, 0.5) | {"2.weight": random_masks(model, 0.02)["2.weight"]}
    masks["2.bias"].fill_(True)
    apply_masks(model, masks)
    path = tmp_path_factory.mktemp("fuzz") / "n"
    write_bundle(path, model, masks, {"seed": 0, "options": {"a": [1, 2, {"b": "c"}]}})
    header, _ = take_apart(path.read_bytes())
    assert {"bitmask/0.weight", "gaps/2.weight", "values/2.bias", "tensor/brief"} <= header.keys()
    return path.read_bytes(), read_bundle(path)


def outcome(path, content):
    """Return what a file is read as, or None where it is refused in a message for people."""
    path.write_bytes(content)
    try:
        return read_bundle(path)
    except InputError as error:
        message = str(error)
        assert message.startswith(f"{path}: must be ")
        assert "\n" not in message
        assert len(message) < 600
        return None
    finally:
        assert list(path.parent.iterdir()) == [path]


def assert_the_same(found, expected):
    assert same_bits(found.state, expected.state)
    assert same_bits(found.masks, expected.masks)
    assert found.metadata == expected.metadata


def assert_consistent(found):
    for name, mask in found.masks.items():
        assert mask.dtype == torch.bool
        assert mask.shape == found.state[name].shape
        assert not found.state[name][~mask].any()


@st.composite
def mutations(draw, content):
    """Flip bytes, cut, extend, or move parts of a file."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        other = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "cut", "drop", "insert", "copy", "length"]))
        if kind == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[min(at, other) : max(at, other)]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=20))
        elif kind == "copy":
            part = content[other : other + draw(st.integers(1, 64))]
            content[at : at + len(part)] = part
        else:
            content[:8] = draw(st.integers(0, 2**64 - 1) | st.integers(0, 4000)).to_bytes(
                8, "little"
            )
    return bytes(content)


def paths_in(document, path=()):
    """Yield where every value of a JSON document is."""
    children = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, child in children:
        yield (*path, key)
        yield from paths_in(child, (*path, key))


@st.composite
def edited(draw, document):
    """Replace, remove, rename, nudge or swap values anywhere in a JSON document."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths_in(document))
        if not places:
            break
        *parents, key = draw(st.sampled_from(places))
        section = document
        for parent in parents:
            section = section[parent]
        kind = draw(st.sampled_from(["replace", "remove", "rename", "nudge", "swap"]))
        if kind == "replace":
            section[key] = draw(JSON)
        elif kind == "remove":
            del section[key]
        elif kind == "rename" and isinstance(section, dict):
            name = draw(st.text(max_size=12) | st.sampled_from(sorted(section)))
            section[name] = section.pop(key)
        elif kind == "nudge" and type(section[key]) is int:
            section[key] += draw(st.sampled_from([-8, -4, -1, 1, 4, 8]))
        elif isinstance(section, dict):
            other = draw(st.sampled_from(sorted(section)))
            section[key], section[other] = section[other], section[key]
    return document


@st.composite
def rewrites(draw, content):
    """Edit the header, the JSON within its texts, and the data; return the three."""
    header, data = take_apart(content)
    which = draw(st.sampled_from(["header", "shapes", "metadata", "data"]))
    if which == "header":
        header = draw(edited(header))
    elif which == "data":
        data = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        data = bytes(data)
    else:
        texts = header["__metadata__"]
        texts[which] = json.dumps(draw(edited(json.loads(texts[which]))))
    return header, data


@EXAMPLES
@given(data=st.data())
def test_mutated_bytes(tmp_path, written, data):
    content, expected = written
    found = outcome(tmp_path / "n", data.draw(mutations(content)))
    if found:
        assert_the_same(found, expected)


@pytest.mark.slow
@EXAMPLES
@given(data=st.data(), signed=st.booleans())
def test_rewritten_headers(tmp_path, written, data, signed):
    """With a signature another network, perhaps, but never one that contradicts itself."""
    content, expected = written
    header, rest = data.draw(rewrites(content))
    signed = signed and isinstance(header.get("__metadata__"), dict)
    found = outcome(tmp_path / "n", put_together(header, rest, sign=signed))
    if found and signed:
        assert_consistent(found)
    elif found:
        assert_the_same(found, expected)
