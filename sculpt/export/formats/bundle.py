"""The bundle: kept values and positions, metadata of the network, and a checksum."""

from pathlib import Path

from sculpt.bundle import NETWORK_FILE, bundle_bytes, read_bundle
from sculpt.export.formats import Network, Run
from sculpt.registry import FORMATS


@FORMATS.register("bundle")
class BundleFormat:
    """Smallest, and complete: sculpt restores the masked module from it, bit for bit."""

    file = NETWORK_FILE
    kind = "the state of the network beside it"
    is_code = False
    purpose = "the masked network, its record, and all that makes it anew; `sculpt.load` reads it"
    example = """\
import json, numpy as np
from safetensors.numpy import load_file, safe_open
shapes = json.loads(safe_open("{file}", "numpy").metadata()["shapes"])
stored, weights = load_file("{file}"), {{}}
for name, shape in shapes.items():
    kept = np.ones(np.prod(shape), bool)
    if f"bitmask/{{name}}" in stored:
        kept = np.unpackbits(stored[f"bitmask/{{name}}"], count=kept.size).astype(bool)
    elif f"gaps/{{name}}" in stored:
        gaps = stored[f"gaps/{{name}}"].astype(int)
        kept[:] = False
        kept[(np.cumsum(gaps + (gaps < 255)) - 1)[gaps < 255]] = True
    weights[name] = np.zeros(shape, np.float32)
    weights[name].reshape(-1)[kept] = stored[f"values/{{name}}"]
"""

    @staticmethod
    def content(network: Network) -> bytes:
        """Return the content of the file."""
        return bundle_bytes(network.model, network.masks, network.metadata)

    @staticmethod
    def open(path: Path, network: Network) -> Run:
        """Return a function that runs the file."""
        # Not `load`: the network may be one that only its owner can build.
        return network.run_with(read_bundle(path).state)
