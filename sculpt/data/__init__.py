"""Data sets: reading, splitting and augmentation.

A data set kind is a class in a file of this folder, registered by name on
`sculpt.registry.DATASETS`. It takes its options as keywords with plain types (a study's
`data:` section is checked against that signature) and has three methods:

- `describe() -> ImageSpec`: shape and number of classes, without reading all pixels (or a
  `TensorSpec`: of other inputs than images of 8 bits, or other targets than classes);
- `available() -> str | None`: None, or one sentence naming what is missing and how to get it;
- `read() -> ImageArrays`: every image, as uint8 in memory (other inputs as float32).

The kind `import` (`imported.py`) stands for any callable that returns tensors or data sets.

From there on nothing depends on the kind: `make_splits` divides the arrays into training,
validation and test images, and those live as uint8 on one device, where they are
normalised and augmented a batch at a time. There are no loader processes.
"""

from sculpt.data.augmentation import augment, blend_share
from sculpt.data.images import ImageArrays, ImageSet, ImageSpec, Spec, TensorSpec
from sculpt.data.splits import Splits, make_splits
from sculpt.data.task import Task

__all__ = [
    "ImageArrays",
    "ImageSet",
    "ImageSpec",
    "Spec",
    "Splits",
    "Task",
    "TensorSpec",
    "augment",
    "blend_share",
    "make_splits",
]
