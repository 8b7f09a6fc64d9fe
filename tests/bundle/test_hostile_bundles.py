"""Files from anybody: whatever is in them, there is one InputError, at once, in little memory."""

import json
import os
import tracemalloc

import pytest
import torch
from bundles import put_together, rewrite, sparse_resnet, take_apart
from safetensors.torch import save_file

from sculpt.bundle import FORMAT, is_bundle, read_bundle, write_bundle
from sculpt.errors import InputError
from sculpt.pruning.masks import apply_masks

NAME = "stages.2.0.first.conv.weight"  # (12, 6, 3, 3): 648 weights
DENSITY = 0.05  # its positions are gaps, those of small ones bitmasks
BIAS = "classifier.bias"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound file's header and data; do not change them."""
    path = tmp_path_factory.mktemp("sound") / "n"
    model, masks = sparse_resnet(DENSITY)
    masks[BIAS].fill_(True)
    masks["stem.conv.weight"].fill_(True).view(-1)[::3] = False
    apply_masks(model, masks)
    write_bundle(path, model, masks, {"trial": 3})
    header, data = take_apart(path.read_bytes())
    assert f"gaps/{NAME}" in header
    assert "bitmask/stem.conv.weight" in header
    assert {f"gaps/{BIAS}", f"bitmask/{BIAS}"}.isdisjoint(header)
    assert json.loads(header["__metadata__"]["shapes"])[NAME] == [12, 6, 3, 3]
    return header, data


def refused(path):
    """The one message with which a file is refused; nothing is written and little is allocated."""
    before = sorted(path.parent.iterdir())
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read_bundle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6
    message = str(caught.value)
    assert message.startswith(f"{path}: must be ")
    assert "\n" not in message
    assert len(message) < 600
    assert sorted(path.parent.iterdir()) == before
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "n"


def test_what_follows_is_done_to_a_sound_file(path, sound):
    """The hand-made signature is the right one, so that the checks behind it are reached."""
    rewrite(path, *sound)
    assert read_bundle(path).metadata == {"trial": 3}


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        assert "must be a readable safetensors file" in refused(path)
        assert not is_bundle(path)
    with pytest.raises(InputError, match="readable"):
        read_bundle("null\0byte")


def test_no_waiting_for_pipes_and_no_end_of_devices(path):
    os.mkfifo(path)
    assert "a pipe, a socket or a device" in refused(path)
    with pytest.raises(InputError, match="a pipe, a socket or a device"):
        read_bundle("/dev/zero")


@pytest.mark.parametrize(
    "content", [b"", b"x", b"{}" * 100, b"\x80\x04pickle", b"\xff" * 64, b"\0" * 64]
)
def test_files_of_another_kind(path, content):
    path.write_bytes(content)
    assert "readable safetensors file" in refused(path)
    assert not is_bundle(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "sculpt-bundle-9"}])
def test_foreign_safetensors_files(path, metadata):
    save_file({"weight": torch.ones(2)}, path, metadata=metadata)
    message = refused(path)
    assert FORMAT in message
    assert repr((metadata or {}).get("format")) in message
    assert not is_bundle(path)


@pytest.mark.parametrize("length", [2**60, 2**63, 2**64 - 1, 2**24 + 1, 10**6])
def test_headers_of_an_enormous_length(path, sound, length):
    content = put_together(*sound)
    path.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert "a header of" in refused(path)
    if 2**24 < length < 2**40:
        os.truncate(path, 2**40)  # which takes no space on the disk
        assert "a header of" in refused(path)


HEADERS = [b"", b"[]", b"3", b"null", b"{", b"\xff\xfe{}", b'{"a": NaN}', b"[" * 100_000]
HEADERS += [
    b'{"a":' * 100_000,
    b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    b'{"a": 1' + b"0" * 5000 + b"}",
]
HEADERS += [b'{"__metadata__": ' + value for value in (b'[], "a": {}}', b'{"format": 3}}')]
HEADERS += [b'{"__metadata__": {"format": {}}}', b'{"__metadata__": {}, "__metadata__": {}}']


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: repr(header[:30]))
def test_headers_that_are_none(path, header):
    path.write_bytes(put_together(header, b"\0" * 64))
    assert "readable safetensors file" in refused(path)


def test_files_cut_short_anywhere_or_longer(path, sound):
    whole = put_together(*sound)
    for length in [*range(0, 64), *range(64, len(whole), 211), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert "must be" in refused(path)
    path.write_bytes(whole + b"\0")
    assert "damaged" in refused(path)


def text(header, **changes):
    return header | {"__metadata__": header["__metadata__"] | changes}


def without(header, *keys):
    header = header | {"__metadata__": dict(header["__metadata__"])}
    for key in keys:
        (header if key in header else header["__metadata__"]).pop(key)
    return header


def shaped(header, shape, name=NAME):
    shapes = json.loads(header["__metadata__"]["shapes"])
    return text(header, shapes=json.dumps(shapes | {name: shape}))


def entry(header, key, **changes):
    return header | {key: header[key] | changes}


def renamed(header, old, new):
    return {new if key == old else key: value for key, value in header.items()}


def patched(header, data, key, edit):
    begin, end = header[key]["data_offsets"]
    return header, data[:begin] + edit(data[begin:end]) + data[end:]


def at(header, data, offsets):
    return entry(header, WHOLE, data_offsets=offsets), data


def bytes_at(begin, end):
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


VALUES, GAPS, WHOLE = f"values/{NAME}", f"gaps/{NAME}", "tensor/stem.norm.weight"
STEM = "stem.conv.weight"
BITMASK = f"bitmask/{STEM}"
DAMAGE = {
    "no shapes": lambda h, d: (without(h, "shapes"), d),
    "no metadata": lambda h, d: (without(h, "metadata"), d),
    "shapes are no JSON": lambda h, d: (text(h, shapes="{"), d),
    "metadata are no JSON": lambda h, d: (text(h, metadata="{"), d),
    "metadata are NaN": lambda h, d: (text(h, metadata='{"a": NaN}'), d),
    "metadata are nested": lambda h, d: (text(h, metadata="[" * 100_000), d),
    "metadata are nested, well": lambda h, d: (text(h, metadata="[" * 900 + "]" * 900), d),
    "metadata have a key twice": lambda h, d: (text(h, metadata='{"a": 1, "a": 1}'), d),
    "metadata are a list": lambda h, d: (text(h, metadata="[]"), d),
    "metadata are a number": lambda h, d: (text(h, metadata="3"), d),
    "metadata are a long number": lambda h, d: (text(h, metadata="3" * 5000), d),
    "shapes are a list": lambda h, d: (text(h, shapes="[]"), d),
    "shape too small": lambda h, d: (shaped(h, [12, 6, 3]), d),
    "shape too large": lambda h, d: (shaped(h, [12, 6, 3, 30]), d),
    "shape enormous": lambda h, d: (shaped(h, [2**30, 2**30]), d),
    "shape of the most": lambda h, d: (shaped(h, [2**31]), d),
    "shape of most in all": lambda h, d: (shaped(shaped(h, [2**29]), [2**29], BIAS), d),
    "shape negative": lambda h, d: (shaped(h, [-12, 6, -9]), d),
    "shape of nothing": lambda h, d: (shaped(h, [0]), d),
    "shape of floats": lambda h, d: (shaped(h, [648.0]), d),
    "shape of truths": lambda h, d: (shaped(h, [True, 648]), d),
    "shape is text": lambda h, d: (shaped(h, "648"), d),
    "shape is null": lambda h, d: (shaped(h, None), d),
    "nine dimensions": lambda h, d: (shaped(h, [648, *[1] * 8]), d),
    "a shape too many": lambda h, d: (shaped(h, [3], "more.weight"), d),
    "all of a larger shape": lambda h, d: (shaped(h, [11], BIAS), d),
    "values renamed": lambda h, d: (renamed(h, VALUES, "values/a"), d),
    "gaps renamed": lambda h, d: (renamed(h, GAPS, "gaps/a"), d),
    "gaps as a bitmask": lambda h, d: (renamed(h, GAPS, f"bitmask/{NAME}"), d),
    "bitmask as gaps": lambda h, d: (renamed(h, BITMASK, f"gaps/{STEM}"), d),
    "gaps as a mask of earlier": lambda h, d: (renamed(h, GAPS, f"mask/{NAME}"), d),
    "whole and masked": lambda h, d: (renamed(h, WHOLE, f"tensor/{NAME}"), d),
    "an unknown prefix": lambda h, d: (renamed(h, WHOLE, "other/a"), d),
    "no prefix": lambda h, d: (renamed(h, WHOLE, "a"), d),
    "a path as a name": lambda h, d: (renamed(h, WHOLE, "tensor/../../x"), d),
    "an absolute name": lambda h, d: (renamed(h, WHOLE, "tensor//etc/passwd"), d),
    "a drive's name": lambda h, d: (renamed(h, WHOLE, "tensor/C:\\x"), d),
    "dots alone": lambda h, d: (renamed(h, WHOLE, "tensor/.."), d),
    "no name": lambda h, d: (renamed(h, WHOLE, "tensor/"), d),
    "a name of control characters": lambda h, d: (renamed(h, WHOLE, "tensor/a\x1b[31m\n"), d),
    "half a character": lambda h, d: (renamed(h, WHOLE, "tensor/\ud800"), d),
    "a long name": lambda h, d: (renamed(h, WHOLE, "o" * 100_000), d),
    "gaps end behind": lambda h, d: patched(h, d, GAPS, lambda b: b[:-1] + b"\xfe"),
    "gaps end before": lambda h, d: patched(h, d, GAPS, lambda b: b"\0" * len(b)),
    "gaps keep fewer": lambda h, d: patched(h, d, GAPS, lambda b: b"\xff" + b[1:]),
    "bitmask keeps all": lambda h, d: patched(h, d, BITMASK, lambda b: b"\xff" * len(b)),
    "gaps of signed bytes": lambda h, d: (entry(h, GAPS, dtype="I8"), d),
    "gaps of truths": lambda h, d: (entry(h, GAPS, dtype="BOOL"), d),
    "values in a column": lambda h, d: (entry(h, VALUES, shape=[*h[VALUES]["shape"], 1]), d),
    "values of wide numbers": lambda h, d: (entry(h, VALUES, dtype="F64"), d),
    "values of unknown numbers": lambda h, d: (entry(h, VALUES, dtype="F8_E4M3"), d),
    "values of listed numbers": lambda h, d: (entry(h, VALUES, dtype=["F32"]), d),
    "a tensor of too many": lambda h, d: (entry(h, WHOLE, shape=[4]), d),
    "a tensor of nothing": lambda h, d: (entry(h, WHOLE, shape=[0]), d),
    "a tensor of negatives": lambda h, d: (entry(h, WHOLE, shape=[-3, -1]), d),
    "a tensor of enormous lengths": lambda h, d: (entry(h, WHOLE, shape=[2**40] * 8), d),
    "an empty tensor of enormous lengths": lambda h, d: (
        h | {"tensor/a": bytes_at(len(d), len(d)) | {"shape": [2**47, 2**47, 0]}},
        d,
    ),
    "a tensor of floats": lambda h, d: (entry(h, WHOLE, shape=[3.0]), d),
    "a tensor without a shape": lambda h, d: (entry(h, WHOLE, shape=None), d),
    "a tensor with more said": lambda h, d: (entry(h, WHOLE, more=1), d),
    "a tensor that is a list": lambda h, d: (h | {WHOLE: []}, d),
    "offsets overlap": lambda h, d: at(h, d, h["tensor/stem.norm.bias"]["data_offsets"]),
    "offsets beyond the end": lambda h, d: at(h, d, [len(d), len(d) + 12]),
    "offsets negative": lambda h, d: at(h, d, [-12, 0]),
    "offsets reversed": lambda h, d: at(h, d, [12, 0]),
    "one offset": lambda h, d: at(h, d, [0]),
    "more data": lambda h, d: (h, d + b"\0"),
    "data before": lambda h, d: (h, b"\0\0\0\0" + d),
    "no data": lambda h, d: (h, b""),
    "a tensor left out": lambda h, d: (without(h, WHOLE), d),
    "two codes": lambda h, d: (
        h | {f"bitmask/{NAME}": bytes_at(len(d), len(d) + 81)},
        d + b"\0" * 81,
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage(path, sound, damage):
    """With the right checksum, so that the checks behind it are reached."""
    rewrite(path, *damage(*sound))
    assert "damaged" in refused(path)


def test_checksums(path, sound):
    header, data = sound
    rewrite(path, without(header, "checksum"), data, sign=False)
    assert "'checksum' is missing" in refused(path)
    rewrite(path, *DAMAGE["data before"](header, data), sign=False)
    assert "checksum is that of something else" in refused(path)


def test_truth_values_that_are_neither(path):
    model = torch.nn.Linear(2, 2)
    model.register_buffer("truth", torch.tensor([True, False]))
    write_bundle(path, model, {}, {})
    header, data = take_apart(path.read_bytes())
    rewrite(path, *patched(header, data, "tensor/truth", lambda b: b"\1\2"))
    assert "others than 0 and 1" in refused(path)


def test_a_small_file_of_large_shapes_asks_for_no_memory(path):
    """Each byte is good for 256 weights at most, so that the shapes must be lies."""
    shapes = {f"w{i}.weight": [2**24] for i in range(60)}
    tensors = {f"values/{name}": torch.empty(0) for name in shapes}
    tensors |= {f"gaps/{name}": torch.full((100,), 255, dtype=torch.uint8) for name in shapes}
    texts = {"format": FORMAT, "shapes": json.dumps(shapes), "metadata": "{}"}
    save_file(tensors, path, metadata=texts)
    rewrite(path, *take_apart(path.read_bytes()))
    assert "gaps must end" in refused(path)


def test_a_key_that_is_given_twice(path, sound):
    """Of such keys some readers take the first, some the last."""
    header = json.dumps(sound[0])
    twice = header.replace("{", '{"tensor/twice": {}, "tensor/twice": {},', 1)
    path.write_bytes(put_together(twice.encode(), sound[1]))
    assert "given twice" in refused(path)
