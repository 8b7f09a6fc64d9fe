"""A bundle: a masked network as one safetensors file, a little larger than its kept weights.

For every masked parameter `NAME` there are

- `values/NAME`: its kept values, row by row, bit for bit;
- `bitmask/NAME` or `gaps/NAME`: which they are (see `sculpt.bundle.positions`); neither where all
  are kept;

and every other tensor of the state stands whole as `tensor/NAME`. The file's metadata are

- `format`: `sculpt-bundle-1`;
- `shapes`: a JSON mapping of the masked parameters to their shapes;
- `metadata`: a JSON mapping; of a trial's network it says which network it is, see
  `sculpt.export.description`;
- `checksum`: the SHA-256 of all of it, see `sculpt.bundle.container.Header.checksum`.

What was pruned is read as 0, whatever sign its zero had. Every kept value comes back with its
bits, and that is also so for what is not finite: a network that diverged must not fail its trial,
and its file must still be one that can be read. Who wants to use a network looks, as
`sculpt.load` does.

Nothing of a file is ever executed, and no name in it ever becomes a path.
"""

from sculpt.bundle.reading import FORMAT, Bundle, is_bundle, read_bundle
from sculpt.bundle.writing import write_bundle

__all__ = ["FORMAT", "Bundle", "is_bundle", "read_bundle", "write_bundle"]
