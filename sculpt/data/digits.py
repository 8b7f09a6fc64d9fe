"""The 8x8 handwritten digits that ship inside scikit-learn: no download, ever."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from sculpt.data.images import ImageArrays, ImageSpec
from sculpt.data.splits import stratified_choice
from sculpt.registry import DATASETS

# scikit-learn does not separate training and test images. This division is fixed, whatever a
# study's seed, so that test errors are comparable between studies.
_TEST_FRACTION = 0.2
_TEST_SEED = 0


@DATASETS.register("digits")
class Digits:
    """1,797 grey images of ten digits; a fifth of each class is the test set."""

    def describe(self) -> ImageSpec:
        """Return the shape and classes, known without reading."""
        return ImageSpec(channels=1, height=8, width=8, classes=10)

    def available(self) -> str | None:
        """Return None: scikit-learn is always installed."""
        return None

    def read(self) -> ImageArrays:
        """Read all images, their 17 grey levels spread over 0..255."""
        table = torch.from_numpy(np.loadtxt(_table(), delimiter=",", dtype=np.int64))
        grey, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
        images = (grey * (255 / 16)).round().to(torch.uint8)[:, None]
        test, train = stratified_choice(labels, round(_TEST_FRACTION * len(labels)), _TEST_SEED)
        return ImageArrays(
            train_images=images[train],
            train_labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
            class_names=tuple(str(digit) for digit in range(10)),
        )


def _table() -> Path:
    """The file that `sklearn.datasets.load_digits` reads: rows of 64 pixels, 0..16, and a label.

    Reading it takes a hundredth of the time that importing scikit-learn takes.
    """
    package = find_spec("sklearn")
    assert package is not None  # a dependency
    assert package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
