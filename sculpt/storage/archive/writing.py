"""A study written as an archive: a folder of text that can be committed to git."""

import json
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from sculpt.errors import InputError
from sculpt.export.metadata import without_private
from sculpt.files import replacing_folder
from sculpt.storage.archive.contents import (
    FORMAT,
    FORMAT_FAMILY,
    RECORDS,
    ArchivedStudies,
    ArchivedTrial,
    Distributions,
    Json,
)
from sculpt.storage.archive.privacy import Privacy, privacy_of
from sculpt.storage.attributes import PROBLEMS
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.store import ARCHIVE_FILE, Store
from sculpt.storage.stored_trials import SYSTEM_KEYS
from sculpt.storage.trial_files import LATER, read_record
from sculpt.storage.trials import retries_left
from sculpt.typed_json import to_json

ROOT = "DIR"
"""Stands for the folder of the images, which is none of an archive's business."""

CONFIRMED = ("selected", "seeds")
"""Attributes of the confirmation: its candidates, and the number of its seeds."""


def write_archive(store: Store, folder: Path, recorded: Sequence[int | str] | None) -> None:
    """Write what a study has found so far into a folder, as text, without networks.

    Nothing in it says when or where it was written: the same results give the same bytes. A trial
    that is running is read back as interrupted; see `_archived_trial`.

    Args:
        store: The study, which may be running, or an archive.
        folder: A new one, or an older archive of this study, which stays until it is replaced as a
            whole.
        recorded: Trials whose records are written whole, numbers and `base`; None for all that are
            complete. The others have their summaries.

    Raises:
        InputError: The folder holds something else, or cannot be written; nothing was changed.
        StorageError: A record is not where it was kept.
    """
    check_replaceable(folder, store.config.study)
    # Where links lead, because what they point to is to be replaced.
    target = folder.expanduser().resolve()
    # The documents of an archive were hidden before, and its own path is no place of the study's.
    places = [] if store.archive else [store.config.storage_url, store.artifacts.location]
    privacy = privacy_of(store.config, places)
    studies = {
        "confirmation": store.confirmation,  # first: it is of candidates that have finished
        "candidates": store.candidates,
        "base": store.base,
    }
    parts: dict[str, Json] = {}
    trials: dict[str, list[FrozenTrial]] = {}
    for name, study in studies.items():
        if study:
            parts[name], trials[name] = _describe(study, privacy)
    # Of several finished attempts at the base the first.
    done = {name: [t for t in trials[name] if t.state is TrialState.COMPLETE] for name in trials}
    complete: dict[int | str, FrozenTrial] = {t.number: t for t in done["candidates"]}
    if done["base"]:
        complete = {"base": done["base"][0], **complete}
    kept = {k: trial for k, trial in complete.items() if recorded is None or k in recorded}
    head = {
        "format": FORMAT,
        "sculpt": version("sculpt"),
        "study": store.config.study,
        "settings": _settings(store, privacy),
        "images": store.images,
        "total": store.total,
        "studies": {name: parts.get(name) for name in ArchivedStudies.model_fields},
        "records": list(kept),
    }
    try:
        with replacing_folder(target) as made:
            _write(made / ARCHIVE_FILE, _indented(head))
            for name, part in parts.items():
                usual = part["distributions"]
                lines = [_dumps(_archived_trial(t, usual, privacy)) for t in trials[name]]
                _write(made / f"{name}.jsonl", "\n".join(lines))
            for label, trial in kept.items():
                record = to_json(read_record(store, trial))
                record["config"] = without_private(record["config"])
                _write(made / RECORDS / f"{label}.json", _spread(privacy.hide(record)))
    except OSError as error:
        raise InputError(
            f"an archive must go to a folder that can be written, but got {folder} "
            f"({error.strerror or error}); give another with --output"
        ) from error


def _settings(store: Store, privacy: Privacy) -> Json:
    settings: Json = without_private(store.config.model_dump(mode="json"))
    if "root" in store.config.data.options:
        settings["data"]["root"] = ROOT  # a new run must name a folder
    return privacy.hide(settings)


def check_replaceable(folder: Path, study: str) -> None:
    """Raise an InputError if a folder is neither free nor an older archive of a study."""
    target = folder.expanduser().resolve()
    problem = _obstacle(target, study) if target.exists() else None
    if problem:
        raise InputError(
            f"an archive of {study!r} must go to a new folder, or in the place of an older "
            f"archive, but {folder} {problem}; give another with --output"
        )


def _obstacle(target: Path, study: str) -> str | None:
    """Return what is wrong with a path that exists, if it is neither empty nor such an archive."""
    if not target.is_dir():
        return "is a file"
    files = [path.relative_to(target) for path in target.rglob("*") if not path.is_dir()]
    if not files and not any(target.iterdir()):
        return None
    if others := sorted(str(file) for file in files if not _is_ours(file)):
        return f"holds {others[0]}"
    try:
        head = json.loads((target / ARCHIVE_FILE).read_bytes())
        found, written = head["study"], head["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found, written = None, None
    if not str(written).startswith(FORMAT_FAMILY):
        return "is none"
    return None if found == study else f"is one of the study {found!a:.60}"


def _is_ours(file: Path) -> bool:
    """Return whether a path in a folder is one that an archive may have."""
    if len(file.parts) == 2:
        return file.parts[0] == RECORDS and file.suffix == ".json"
    return str(file) in (ARCHIVE_FILE, *(f"{name}.jsonl" for name in ArchivedStudies.model_fields))


def _describe(study: optuna.Study, privacy: Privacy) -> tuple[Json, list[FrozenTrial]]:
    """Return an Optuna study as an `ArchivedStudy`, and its trials."""
    attributes = study.user_attrs
    # Those that are read, and stand nowhere else.
    read = [key for key in sorted(attributes) if key in CONFIRMED or key.startswith(LATER)]
    with experimental_accepted():
        names = study.metric_names
    trials = study.get_trials(deepcopy=False)
    usual: dict[str, BaseDistribution] = {}
    for trial in trials:
        usual = trial.distributions | usual  # the first trial's with this parameter
    return {
        "directions": [direction.name.lower() for direction in study.directions],
        "metric_names": names,
        "user_attrs": privacy.hide({key: attributes[key] for key in read}),
        "distributions": _distributions(usual, privacy),
        "trials": len(trials),
    }, trials


def _distributions(found: dict[str, BaseDistribution], privacy: Privacy) -> Distributions:
    written = {name: json.loads(distribution_to_json(found[name])) for name in sorted(found)}
    hidden: Distributions = privacy.hide(written)
    return hidden


def _archived_trial(trial: FrozenTrial, usual: Distributions, privacy: Privacy) -> Json:
    """Return a trial as an `ArchivedTrial`.

    One that is running is written as failed without an error of its own, which is read as
    interrupted: the end of this attempt will never be seen here. Where that would be read as
    failed, because it has been interrupted as often as it may be, it is written as queued.
    """
    state, start, complete = trial.state, trial.datetime_start, trial.datetime_complete
    if state is TrialState.RUNNING:
        last = retries_left(trial) <= 0
        state, start = (TrialState.WAITING, None) if last else (TrialState.FAIL, start)
    own = _distributions(trial.distributions, privacy)
    steps = sorted(trial.intermediate_values.items())
    archived = ArchivedTrial.model_construct(
        number=trial.number,
        state=state.name,
        params=privacy.hide(trial.params),
        values=trial.values,
        user_attrs={
            name: (privacy.hide_message if name in PROBLEMS else privacy.hide)(value)
            for name, value in sorted(trial.user_attrs.items())
        },
        start=start.isoformat() if start else None,
        complete=complete.isoformat() if complete else None,
        distributions={name: kind for name, kind in own.items() if kind != usual.get(name)},
        intermediate_values={str(step): value for step, value in steps},
        system_attrs={k: trial.system_attrs[k] for k in SYSTEM_KEYS if k in trial.system_attrs},
    )
    return archived.model_dump(exclude_defaults=True)


def _dumps(value: Any) -> str:
    """Return JSON on one line, floats exact; in ASCII, so that no letter breaks lines or files."""
    return json.dumps(value, separators=(",", ":"))


def _indented(head: Json) -> str:
    """Return JSON on many lines, but lists of numbers and texts on one each."""
    # A line break is never part of a text in JSON.
    return re.sub(
        r"\[\n[^\[\]{}]*\]",
        lambda found: re.sub(r"\n\s*", " ", found[0]).replace("[ ", "[", 1)[:-2] + "]",
        json.dumps(head, indent=1),
    )


def _spread(record: Json) -> str:
    """Return a record as JSON with one line for each key, and for each seed's run."""
    lines = []
    for key, value in record.items():
        text = _dumps(value)
        if key == "runs" and isinstance(value, list) and value:
            text = "[\n" + ",\n".join(map(_dumps, value)) + "\n]"
        lines.append(f"{_dumps(key)}:{text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    # As bytes, because on some systems text gets other line ends.
    file.write_bytes(f"{text}\n".encode() if text else b"")
