"""Metadata of a network's file: how to build the network, and its trial, without private data."""

import copy
from pathlib import Path
from typing import Any

from sculpt.documents import lookup
from sculpt.record import TrialRecord
from sculpt.registry import IMPORT
from sculpt.typed_json import to_json

FROM_RECORD = ("study", "trial", "role", "params", "counting", "kept_parameters")
FROM_RUN = ("seed", "val_error", "test_error", "diverged")

LONG = ("history", "layers", "signal")
"""Keys left out of the runs in a record: epochs, and what the record repeats of the first seed."""

PRIVATE = (
    "storage",
    "artifacts",
    "data.root",
    "data.download",
    "pruning.data.root",
    "pruning.data.download",
)
"""Settings that concern only the machine a study ran on: a storage's address has its password."""

PATHS = ("bundle", "checkpoint")
"""Options of criteria and initializers that name files; only the files' own names are kept."""


def describe_network(recorded: TrialRecord, seed: int) -> dict[str, Any]:
    """Return the metadata of one seed's network, see `write_bundle`; ValueError if it has none.

    Returns:
        A mapping of JSON values: `study`, `trial` (a number, or `base`), `role`, `params`,
        `counting` (the rule of `kept_parameters`: `paper` or `total`), `kept_parameters`, `seed`;
        `model` with `name` and `options` of a registered family; `input` with `channels`,
        `height`, `width`, `classes`, `class_names` (or None), and `mean` and `std` of each channel
        for pixels from 0 to 1 (of other data see `sculpt.record.TensorInput`); the `plugins` of the
        study; the seed's `val_error` and `test_error` (fractions) and `diverged`; `versions`; and
        the trial's `record`, without its runs' histories and without private settings.
    """
    if seed not in recorded.seeds:
        known = ", ".join(map(str, recorded.seeds))
        raise ValueError(f"the seed must be one of {known}, but got {seed}")
    record = _without_folders(to_json(recorded), paths_in(recorded.config))
    run = record["runs"][recorded.seeds.index(seed)]
    config = without_private(record["config"])
    options = dict(config["model"])
    runs = [{key: run[key] for key in run if key not in LONG} for run in record["runs"]]
    return {
        **{key: record[key] for key in FROM_RECORD},
        **{key: run[key] for key in FROM_RUN},
        "model": {"name": options.pop("name"), "options": options},
        "input": record["input"],
        "plugins": config["plugins"],
        "versions": record["versions"],
        "record": record | {"config": config, "runs": runs},
    }


def without_private(config: dict[str, Any]) -> dict[str, Any]:
    """Copy a study's settings without those that are `PRIVATE`."""
    config = copy.deepcopy(config)
    for key in PRIVATE:
        section, _, last = key.rpartition(".")
        found = lookup(config, section) if section else config
        if isinstance(found, dict):
            found.pop(last, None)
    return config


def paths_in(document: Any) -> set[str]:
    """Return the paths of files named in a study's settings."""
    found: set[str] = set()
    if isinstance(document, dict):
        found = {document[key] for key in PATHS if isinstance(document.get(key), str)}
        if document.get("name") == IMPORT:  # any option of somebody's callable may be a path
            texts = (value for value in document.values() if isinstance(value, str))
            found |= {text for text in texts if Path(text).is_absolute() and Path(text).name}
        document = list(document.values())
    for value in document if isinstance(document, list) else []:
        found |= paths_in(value)
    return found


def _without_folders(document: Any, paths: set[str]) -> Any:
    """Shorten paths, wherever they appear in a JSON document, to the names of their files."""
    if isinstance(document, dict):
        return {key: _without_folders(value, paths) for key, value in document.items()}
    if isinstance(document, list):
        return [_without_folders(value, paths) for value in document]
    if isinstance(document, str):
        for path in sorted(paths, key=len, reverse=True):
            document = document.replace(path, Path(path).name)
    return document
