"""The errors that are recorded of an exported network, counted again on the images at hand."""

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from sculpt.bundle import NETWORK_FILE
from sculpt.config import Data, Study, Task
from sculpt.data import ImageSet, ImageSpec, Spec, Splits, TensorSpec
from sculpt.documents import lookup
from sculpt.errors import DataError, UnknownNameError
from sculpt.export.folder import Check
from sculpt.export.loading import Loaded, input_of
from sculpt.registry import DATASETS, IMPORT, options_schema
from sculpt.search.images import describe_data, load_data, missing_data
from sculpt.units import ERROR, Metric, count, percent

ERRORS = {"val_error": "validation error", "test_error": "test error"}
"""Recorded errors of a network, and the names of their checks."""

CLOSE = {"float32": 1e-4, "tf32": 3e-3, "bfloat16": 3e-2}
"""How far apart the two logits that decide about an image must be for it to be counted the same
everywhere, as a share of its largest logit, by the precision that the error was recorded in."""

ROUNDING = 1e-6
"""Tolerance for a number of images computed from an error."""

BATCH = 100
"""Images whose logits are computed at a time: changes nothing but time and memory."""


def check_errors(loaded: Loaded, data_root: str | Path | None = None) -> list[Check]:
    """Return one check for each error that is recorded of a network.

    An error agrees if it is counted the same, but for images that are too close to call: other
    arithmetic may decide them otherwise.

    Args:
        loaded: Whoever has sent its file: no plug-in of it is imported, and which folder is read
            for images is not for it to say.
        data_root: See `sculpt.exports.verify`.

    """
    metadata: Mapping[str, object] = loaded.metadata
    recorded = {key: metadata.get(key) for key in ERRORS}
    metric = Metric.of_settings(lookup(metadata, "record.config"))
    splits, reason = None, ""
    try:
        if metric == ERROR and any(error is not None for error in recorded.values()):
            splits = _read_images(loaded, data_root)
    except DataError as fault:
        reason = str(fault)
    checks: list[Check] = []
    for key, error in recorded.items():
        if error is None:
            continue
        ok, detail = None, reason
        if metric != ERROR:
            detail = "only errors of classification are counted again"
        elif isinstance(error, bool) or not (isinstance(error, int | float) and 0 <= error <= 1):
            ok, detail = False, f"it must be a share from 0 to 1, but is {error!a:.60}"
        elif key == "test_error" and (otherwise := _measured_otherwise(loaded)):
            detail = otherwise
        elif splits:
            images = splits.test if key == "test_error" else splits.validation
            ok, detail = _compare_error(loaded, images, error)
        name = ERRORS[key].replace("error", metric.name)
        checks.append({"file": NETWORK_FILE, "check": name, "ok": ok, "detail": detail})
    return checks


def find_wrong_and_close(logits: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return which images are misclassified, and which are too close to call; both bool, (N,).

    Args:
        logits: (N, classes). An image whose logits are not all finite is misclassified, as in
            `sculpt.training.loss_and_error.evaluate`, and that is not close.
        labels: int64, (N,).
        share: Of an image's largest absolute logit, but for those that are the same for all images
            (masked ones): by how much its label's logit and the largest other one must differ.
    """
    finite = logits.isfinite().all(1)
    right = (logits.argmax(1) == labels) & finite
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    # At most, so that equal logits are close even if all of them are 0.
    varies = (logits != logits[:1]).any(0)
    sizes = logits[:, varies] if varies.any() else logits
    close = ((own - others).abs() <= share * sizes.abs().amax(1)) & finite
    return ~right, close


def _measured_otherwise(loaded: Loaded) -> str:
    """Return why a recorded test error is not that of the weights in the file; empty if it is."""
    protocol = lookup(loaded.metadata, "record.config.training.protocol")
    if protocol == "lowest_test":
        return "it is the lowest of several evaluations, not that of these weights"
    return "" if protocol == "validation" else "the file does not say how it was measured"


@torch.no_grad()
def _compare_error(loaded: Loaded, images: ImageSet, recorded: float) -> tuple[bool, str]:
    """Compare the recorded error with the network's on these images; return result and detail."""
    # Where the precision is not known, the coarsest: an honest file must not be called false.
    share = CLOSE.get(_precision(loaded), max(CLOSE.values()))
    wrong = close = 0
    for inputs, labels in images.batches(BATCH):
        found = find_wrong_and_close(loaded.model(inputs), labels, share)
        wrong, close = wrong + int(found[0].sum()), close + int(found[1].sum())
    difference = abs(wrong - recorded * len(images))
    detail = (
        f"{percent(wrong / len(images))} recomputed, {percent(recorded)} recorded "
        f"({count(len(images))} images)"
    )
    if close and difference > ROUNDING:
        detail += f"; {count(close)} too close to call"
    return difference <= close + ROUNDING, detail


def _precision(loaded: Loaded) -> str:
    """Return the precision that the errors were recorded in; empty where the file has none."""
    runs = lookup(loaded.metadata, "record.runs")
    for run in runs if isinstance(runs, list) else []:
        if isinstance(run, dict) and run.get("seed") == loaded.metadata.get("seed"):
            return str(lookup(run, "training.precision"))
    return ""


def _read_images(loaded: Loaded, data_root: str | Path | None) -> Splits:
    """Read the images that a network was trained on and measured on, split as they were.

    Raises:
        DataError: they are not at hand, or what is at hand are others; the message says why.
    """
    # Only the images of the study matter: its other settings may be of another version.
    study = Study.model_construct(data=_find_data(loaded, data_root), task=Task())
    described = loaded.metadata["input"]
    shape, outputs = input_of(described)
    expected: Spec = TensorSpec(shape, outputs, "classes", described.get("pixels") is True)
    if "shape" not in described:
        channels, height, width = shape
        expected = ImageSpec(channels, height, width, outputs)
    try:
        missing = missing_data(study)
        if missing:
            raise DataError(missing)
        # Before anything is read, because who wrote the file may ask for images of any size.
        same = describe_data(study) == expected
        splits = load_data(study) if same else None
    except DataError as error:
        # How to mend it is meant for a study file.
        fault = str(error).partition("; ")[0]
        raise DataError(f"the images are not at hand ({fault:.300}); give --data-root") from error
    recorded = lookup(loaded.metadata, "record.data_fingerprint")
    if splits is None or recorded not in (None, splits.fingerprint):
        raise DataError("the images at hand are not those that the error was recorded on")
    return splits


def _find_data(loaded: Loaded, data_root: str | Path | None) -> Data:
    """Return the section `data` of a network's study; where to read is for `data_root` to say.

    Raises:
        DataError: there is none, or none that can be used here.
    """
    section = lookup(loaded.metadata, "record.config.data")
    if not isinstance(section, dict):
        raise DataError("the file does not say which images its study had")
    if section.get("name") == IMPORT:
        raise DataError("the data come from a callable, and which is called no file may say")
    section = {key: section[key] for key in section if key not in ("root", "download")}
    try:
        options = Data.model_validate(section).options
        schema = options_schema(DATASETS.get(section["name"]))
        schema.model_validate(options)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = ".".join(map(str, fault["loc"]))
        raise DataError(
            f"the file does not say which images its study had: its data.{key:.60} is not "
            f"understood ({fault['msg']})"
        ) from error
    except UnknownNameError as error:
        raise DataError(
            f"the images are of a kind that is unknown here ({error!s:.300})"
        ) from error
    if any(not isinstance(value, int | float) for value in options.values()):
        raise DataError(
            "options of images are only taken from a file if they are numbers, because texts may "
            "be paths"
        )
    if data_root is not None and "root" in schema.model_fields:
        section["root"] = str(data_root)
    return Data.model_validate(section)
