"""Small masked networks, their files, and files taken apart by hand."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from networks import random_masks
from torch import Tensor, nn

from sculpt.bundle import write_bundle
from sculpt.initializers import initialize
from sculpt.models.resnet import resnet
from sculpt.pruning.masks import apply_masks, keep_highest, prunable_parameters


def sparse_resnet(density: float = 0.3, **options: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    model = resnet(1, 10, stem_width=3, blocks=1, **options)
    initialize(model, "variance_scaling", seed=0)
    masks = random_masks(model, density)
    apply_masks(model, masks)
    with torch.no_grad():  # batch-norm statistics and counters that are not the fresh ones
        model.train()(torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    return model, masks


def write_trained(path: Path, model: nn.Module, kept: int) -> dict[str, Tensor]:
    """Write a model with only its largest weights, which is left as it was; return the masks."""
    largest = {name: p.detach().abs() for name, p in prunable_parameters(model).items()}
    masks = keep_highest(largest, kept)
    trained = copy.deepcopy(model)
    apply_masks(trained, masks)
    write_bundle(path, trained, masks, {})
    return masks


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether tensors have the same names, types, shapes and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and bits(one[name]) == bits(other[name])
        for name in one
    )


def masked_state(model: nn.Module, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """A model's state in which what is pruned is 0, not -0."""
    return {
        name: tensor.detach().masked_fill(~masks[name], 0) if name in masks else tensor.detach()
        for name, tensor in model.state_dict().items()
    }


def take_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON header and the data of a safetensors file."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put_together(header: Any, data: bytes, *, sign: bool = False) -> bytes:
    """Return the file of a header and data; with its right checksum, if it is signed."""
    if sign:
        document = header | {"__metadata__": dict(header["__metadata__"])}
        document["__metadata__"].pop("checksum", None)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        checksum = hashlib.sha256(canonical + data).hexdigest()
        header = header | {"__metadata__": header["__metadata__"] | {"checksum": checksum}}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def rewrite(path: Path, header: Any, data: bytes, *, sign: bool = True) -> Path:
    path.write_bytes(put_together(header, data, sign=sign))
    return path
