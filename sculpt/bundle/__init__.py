"""A bundle: a masked network as one safetensors file, a little larger than its kept weights.

For every masked parameter `NAME` there are

- `values/NAME`: its kept values, row by row, bit for bit;
- `bitmask/NAME` or `gaps/NAME`: their positions (see `sculpt.bundle.positions`); neither where all
  are kept;

and `tensor/NAME` for every other tensor of the state. The file's metadata are

- `format`: `sculpt-bundle-1`;
- `shapes`: a JSON mapping of the masked parameters to their shapes;
- `metadata`: a JSON mapping; of a trial's network it describes the network, see
  `sculpt.export.metadata`;
- `checksum`: the SHA-256 of all of it, see `sculpt.bundle.container`.

Pruned weights are read as +0. Kept values come back bit for bit, even if they are not finite: a
network that diverged must not fail its trial. Code that uses a network checks that, as
`sculpt.load` does.

Nothing in a file is ever executed, and no name in it ever becomes a path.
"""

from sculpt.bundle.networks import (
    FORMAT,
    NETWORK_FILE,
    Bundle,
    bundle_bytes,
    is_bundle,
    read_bundle,
    write_bundle,
)

__all__ = [
    "FORMAT",
    "NETWORK_FILE",
    "Bundle",
    "bundle_bytes",
    "is_bundle",
    "read_bundle",
    "write_bundle",
]
