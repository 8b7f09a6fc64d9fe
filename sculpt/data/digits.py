"""The 8x8 handwritten digits that ship inside scikit-learn: no download, ever."""

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
        # Imported here because listing the data sets must not cost the import of scikit-learn.
        from sklearn.datasets import load_digits

        bunch = load_digits()
        grey = torch.from_numpy(bunch.images)
        images = (grey * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(bunch.target).long()
        test, train = stratified_choice(labels, round(_TEST_FRACTION * len(labels)), _TEST_SEED)
        return ImageArrays(
            train_images=images[train],
            train_labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
            class_names=tuple(str(digit) for digit in range(10)),
        )
