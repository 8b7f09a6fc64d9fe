"""A study written as an archive: a folder of text that can be committed to git."""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from sculpt.errors import InputError
from sculpt.export.metadata import without_private
from sculpt.files import replacing_folder
from sculpt.search.archive.contents import (
    FORMAT,
    FORMAT_FAMILY,
    RECORDS,
    Json,
    Parts,
    dumps,
    line_of,
    usual_distributions,
)
from sculpt.search.archive.privacy import Privacy, privacy_of
from sculpt.search.references import STUDY_FILE
from sculpt.search.storage.optuna_names import experimental_accepted
from sculpt.search.store import Store
from sculpt.search.trial_files import LATER, read_record
from sculpt.typed_json import to_json

ROOT = "DIR"
"""Stands for the folder of the images, which is none of an archive's business."""

CONFIRMED = ("selected", "seeds")
"""Attributes of the confirmation: of which candidates it is, and on how many seeds."""


def write_archive(store: Store, folder: Path, recorded: Sequence[int | str] | None) -> None:
    """Write what a study has found so far into a folder, as text, without networks.

    Nothing in it says when or where it was written: the same results give the same bytes. A trial
    that is running is read back as interrupted; see `contents.line_of`.

    Args:
        store: The study, which may be running, or an archive.
        folder: A new one, or an older archive of this study, which stays until it is replaced as a
            whole.
        recorded: Trials whose records are written whole, numbers and `base`; None for all that are
            complete. The others have their summaries.

    Raises:
        InputError: the folder holds something else, or cannot be written; nothing was changed.
        StorageError: a record is not where it was kept.
    """
    check_replaceable(folder, store.config.study)
    # Where links lead, because what they point to is to be replaced.
    target = folder.expanduser().resolve()
    # What an archive holds was made private, and where it lies is no place of the study's.
    places = [] if store.archive else [store.config.storage_url, store.artifacts.location]
    privacy = privacy_of(store.config, places)
    studies = {
        "confirmation": store.confirmation,  # first: it is of candidates that have finished
        "candidates": store.candidates,
        "base": store.base,
    }
    parts, trials = {}, {}
    for name, study in studies.items():
        if study:
            parts[name], trials[name] = _describe(study, privacy)
    complete = dict(_finished(trials))
    wanted = complete if recorded is None else set(recorded)
    kept = {label: trial for label, trial in complete.items() if label in wanted}
    head = {
        "format": FORMAT,
        "sculpt": version("sculpt"),
        "study": store.config.study,
        "settings": _settings(store, privacy),
        "images": store.images,
        "total": store.total,
        "studies": {name: parts.get(name) for name in ("base", "candidates", "confirmation")},
        "records": list(kept),
    }
    try:
        with replacing_folder(target) as made:
            _write(made / STUDY_FILE, _indented(head))
            for name, part in parts.items():
                usual = part["distributions"]
                lines = (dumps(line_of(trial, usual, privacy)) for trial in trials[name])
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
        settings["data"]["root"] = ROOT  # whoever runs it again must name a folder
    return privacy.hide(settings)


def check_replaceable(folder: Path, study: str) -> None:
    """Make sure that a folder is free for an archive of a study, or holds an older one.

    Raises:
        InputError: it holds something else.
    """
    target = folder.expanduser().resolve()
    if not target.exists():
        return
    rule = f"an archive of {study!r} must go to a new folder, or in the place of an older archive"
    if not target.is_dir():
        raise InputError(f"{rule}, but {folder} is a file; give another with --output")
    files = [path.relative_to(target) for path in target.rglob("*") if not path.is_dir()]
    if not files and not any(target.iterdir()):
        return
    if others := sorted(str(file) for file in files if not _is_ours(file)):
        raise InputError(f"{rule}, but {folder} holds {others[0]}; give another with --output")
    try:
        head = json.loads((target / STUDY_FILE).read_bytes())
        found, written = head["study"], head["format"]
    except (OSError, ValueError, KeyError, TypeError):
        found, written = None, None
    if not str(written).startswith(FORMAT_FAMILY):
        raise InputError(f"{rule}, but {folder} is none; give another with --output")
    if found != study:
        raise InputError(
            f"{rule}, but {folder} is one of the study {found!a:.60}; give another with --output"
        )


def _is_ours(file: Path) -> bool:
    """Return whether a path in a folder is one that an archive may have."""
    if len(file.parts) == 2:
        return file.parts[0] == RECORDS and file.suffix == ".json"
    return str(file) in (STUDY_FILE, *(f"{name}.jsonl" for name in Parts.model_fields))


def _describe(study: optuna.Study, privacy: Privacy) -> tuple[Json, list[FrozenTrial]]:
    """Return what is said of an Optuna study beside its trials; and these."""
    attributes = study.user_attrs
    read = {key: attributes[key] for key in sorted(attributes) if _is_read(key)}
    with experimental_accepted():
        names = study.metric_names
    trials = study.get_trials(deepcopy=False)
    return {
        "directions": [direction.name.lower() for direction in study.directions],
        "metric_names": names,
        "user_attrs": privacy.hide(read),
        "distributions": usual_distributions(trials, privacy),
        "trials": len(trials),
    }, trials


def _is_read(attribute: str) -> bool:
    """Return whether an attribute of an Optuna study is read, and not said elsewhere."""
    return attribute in CONFIRMED or attribute.startswith(LATER)


def _finished(trials: dict[str, list[FrozenTrial]]) -> Iterator[tuple[int | str, FrozenTrial]]:
    """Give the trials that have records; of several finished attempts at the base the first."""
    bases, candidates = (
        [trial for trial in trials[name] if trial.state is TrialState.COMPLETE]
        for name in ("base", "candidates")
    )
    yield from (("base", trial) for trial in bases[:1])
    yield from ((trial.number, trial) for trial in candidates)


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
        text = dumps(value)
        if key == "runs" and isinstance(value, list) and value:
            text = "[\n" + ",\n".join(map(dumps, value)) + "\n]"
        lines.append(f"{dumps(key)}:{text}")
    return "{\n" + ",\n".join(lines) + "\n}"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    # As bytes, because on some systems text gets other line ends.
    file.write_bytes(f"{text}\n".encode() if text else b"")
