"""What stands in a network's file about it: enough to build it anew, and where it came from."""

import copy
from pathlib import Path
from typing import Any

from sculpt.record import TrialRecord
from sculpt.typed_json import to_json

FROM_RECORD = ("study", "trial", "role", "params", "counting", "kept_parameters")
FROM_RUN = ("seed", "val_error", "test_error", "diverged")

LONG = ("history", "layers", "signal")
"""Of the runs in a record, what is left out: epochs, and what the record has of the first seed."""

PRIVATE = (
    "storage",
    "artifacts",
    "data.root",
    "data.download",
    "pruning.data.root",
    "pruning.data.download",
)
"""Of a study, what concerns only the machine it ran on: a storage's address has its password."""

PATHS = ("bundle", "checkpoint")
"""Options of criteria and initializers that name files; only the files' own names are told."""


def describe_network(recorded: TrialRecord, seed: int) -> dict[str, Any]:
    """Return the metadata of the network of one seed of a trial; see `write_bundle`.

    Args:
        recorded: Of the trial.
        seed: One of the trial's.

    Returns:
        A mapping of JSON values: `study`, `trial`, `role`, `params`, `counting`, `seed`; `model`
        with `name` and `options`; `input` with `channels`, `height`, `width`, `classes`, `mean`
        and `std` of each channel, and `class_names`; the `plugins` of the study; the
        seed's `val_error`, `test_error` and `diverged`; `versions`; and the trial's `record`,
        without its runs' histories and without what is private to the machine.

    Raises:
        ValueError: the trial has no such seed.
    """
    if seed not in recorded.seeds:
        known = ", ".join(map(str, recorded.seeds))
        raise ValueError(f"the seed must be one of {known}, but got {seed}")
    record = _without_folders(to_json(recorded), paths_in(recorded.config))
    run = record["runs"][recorded.seeds.index(seed)]
    config = without_private(record["config"])
    options = dict(config["model"])
    return {
        **{key: record[key] for key in FROM_RECORD},
        **{key: run[key] for key in FROM_RUN},
        "model": {"name": options.pop("name"), "options": options},
        "input": record["input"],
        "plugins": config["plugins"],
        "versions": record["versions"],
        "record": record
        | {"config": config}
        | {"runs": [{key: run[key] for key in run if key not in LONG} for run in record["runs"]]},
    }


def without_private(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a study without those that are `PRIVATE`."""
    config = copy.deepcopy(config)
    for key in PRIVATE:
        *parents, last = key.split(".")
        section: Any = config
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section.pop(last, None)
    return config


def paths_in(document: Any) -> set[str]:
    """Return the paths of files that a study's settings name."""
    found: set[str] = set()
    if isinstance(document, dict):
        found = {document[key] for key in PATHS if isinstance(document.get(key), str)}
        document = list(document.values())
    for value in document if isinstance(document, list) else []:
        found |= paths_in(value)
    return found


def _without_folders(document: Any, paths: set[str]) -> Any:
    """Return a JSON document in which these paths, wherever they stand, are but names of files."""
    if isinstance(document, dict):
        return {key: _without_folders(value, paths) for key, value in document.items()}
    if isinstance(document, list):
        return [_without_folders(value, paths) for value in document]
    if isinstance(document, str):
        for path in sorted(paths, key=len, reverse=True):
            document = document.replace(path, Path(path).name)
    return document
