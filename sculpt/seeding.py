"""Independent streams of randomness, each derived from one seed and the name of its use.

Two networks trained with the same seed see the same data in the same order, whatever
their sizes, because drawing their weights uses another stream than shuffling does.
"""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, for example `(0, "data order", epoch)`.

    The same arguments give the same number on every machine and Python version.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
