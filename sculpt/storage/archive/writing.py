"""A study written as an archive: a folder of text that can be committed to git."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from sculpt.errors import InputError
from sculpt.export.metadata import without_private
from sculpt.files import replacing_folder
from sculpt.storage.archive.contents import (
    FORMAT,
    FORMAT_FAMILY,
    RECORDS,
    ArchivedStudies,
    ArchivedStudy,
    ArchivedTrial,
    ArchiveHead,
    Json,
    written_distributions,
)
from sculpt.storage.archive.privacy import Privacy, privacy_of
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.store import ARCHIVE_FILE, Store
from sculpt.storage.stored_trials import read_trials
from sculpt.storage.trial_files import LATER, read_record
from sculpt.typed_json import to_json
from sculpt.version import VERSION

ROOT = "DIR"
"""Stands for the folder of the images, which is none of an archive's business."""

CONFIRMED = ("selected", "dense", "seeds")
"""Attributes of the confirmation: its candidates and dense opponents, and the number of seeds."""


def write_archive(store: Store, folder: Path, recorded: Sequence[int | str] | None) -> None:
    """Write what a study has found so far into a folder, as text, without networks.

    Nothing in it says when or where it was written: the same results give the same bytes. A trial
    that is running is read back as interrupted; see `ArchivedTrial.of`.

    Args:
        store: The study, which may be running, or an archive.
        folder: A new one, or an older archive of this study, which stays until it is replaced as a
            whole.
        recorded: Trials whose records are written whole, numbers and `base`, and with any of them
            the opponents'; None for all that are complete. The others have their summaries.

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
        "opponents": store.opponents,
    }
    found = {name: _describe(store, study, privacy) for name, study in studies.items() if study}
    done = {
        name: [trial for trial in trials if trial.state is TrialState.COMPLETE]
        for name, (_, trials) in found.items()
    }
    # Of several finished attempts at the base the first.
    complete: dict[int | str, FrozenTrial] = {"base": done["base"][0]} if done["base"] else {}
    complete |= {trial.number: trial for trial in done["candidates"]}
    kept = {k: trial for k, trial in complete.items() if recorded is None or k in recorded}
    if recorded is None or recorded:  # the opponents' are few
        kept |= {f"opponent-{trial.number}": trial for trial in done.get("opponents", [])}
    settings = without_private(store.config.model_dump(mode="json"))
    if "root" in store.config.data.options:
        settings["data"]["root"] = ROOT  # a new run must name a folder
    described: Json = {name: found[name][0] if name in found else None for name in studies}
    head = ArchiveHead.model_construct(
        format=FORMAT,
        sculpt=VERSION,
        study=store.config.study,
        settings=privacy.hide(settings),
        images=store.images,
        total=store.total,
        studies=ArchivedStudies.model_construct(**described),
        records=list(kept),
    )
    try:
        with replacing_folder(target) as made:
            _write(made / ARCHIVE_FILE, _indented(head.model_dump()))
            for name, (part, trials) in found.items():
                lines = [ArchivedTrial.of(t, part.distributions, privacy) for t in trials]
                text = "\n".join(_dumps(line.model_dump(exclude_defaults=True)) for line in lines)
                _write(made / f"{name}.jsonl", text)
            for label, trial in kept.items():
                record = to_json(read_record(store, trial))
                record["config"] = without_private(record["config"])
                _write(made / RECORDS / f"{label}.json", _spread(privacy.hide(record)))
    except OSError as error:
        raise InputError(
            f"an archive must go to a folder that can be written, but got {folder} "
            f"({error.strerror or error}); give another with --output"
        ) from error


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
    if len(file.parts) == 2:
        return file.parts[0] == RECORDS and file.suffix == ".json"
    return str(file) in (ARCHIVE_FILE, *(f"{name}.jsonl" for name in ArchivedStudies.model_fields))


def _describe(
    store: Store, study: optuna.Study, privacy: Privacy
) -> tuple[ArchivedStudy, list[FrozenTrial]]:
    attributes = study.user_attrs
    # Those that are read, and stand nowhere else.
    read = [key for key in sorted(attributes) if key in CONFIRMED or key.startswith(LATER)]
    with experimental_accepted():
        names = study.metric_names
    trials = read_trials(study, store.storage)
    usual: dict[str, BaseDistribution] = {}
    for trial in trials:
        usual = trial.distributions | usual  # the first trial's with this parameter
    described = ArchivedStudy.model_construct(
        directions=[direction.name.lower() for direction in study.directions],
        metric_names=names,
        user_attrs=privacy.hide({key: attributes[key] for key in read}),
        distributions=written_distributions(usual, privacy),
        trials=len(trials),
    )
    return described, trials


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
