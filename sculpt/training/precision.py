"""The arithmetic of matrix products and convolutions, by name."""

import torch

from sculpt.errors import InputError


def resolve_precision(name: str, device: torch.device) -> str:
    """Resolve a precision on a device to `bfloat16`, `tf32` or `float32`.

    `auto` is bfloat16 where the device multiplies it in hardware, and float32 elsewhere:
    emulated, it would be slower and less exact.

    Raises:
        InputError: the device lacks `tf32`.
    """
    if name == "tf32" and device.type != "cuda":
        raise InputError(
            f"training.precision: tf32 exists on CUDA devices only, but the device is {device}; "
            "choose float32, bfloat16 or auto"
        )
    if name != "auto":
        return name
    return "bfloat16" if has_native_bfloat16(device) else "float32"


def has_native_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older versions of torch cannot say; then float32 is the safe answer.
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(
        found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")
    )


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Make the context of a forward pass at a resolved precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
