"""Files as earlier versions wrote them, which must stay readable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

EARLIER = "sculpt-weights-1"


def write_earlier(
    path: Path, model: nn.Module, masks: dict[str, Tensor], metadata: dict[str, Any]
) -> None:
    """Write a network as `sculpt.export.weights.save_network` did, of which this is a copy."""
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if name in masks:
            mask = masks[name].cpu()
            shapes[name] = list(tensor.shape)
            tensors[f"values/{name}"] = tensor[mask]
            tensors[f"mask/{name}"] = torch.from_numpy(np.packbits(mask.flatten().numpy()))
        else:
            tensors[f"tensor/{name}"] = tensor
    header = {"format": EARLIER, "shapes": json.dumps(shapes), "metadata": json.dumps(metadata)}
    save_file(tensors, path, metadata=header)
