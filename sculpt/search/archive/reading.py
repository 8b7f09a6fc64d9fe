"""An archive read back: its Optuna studies in memory, its records where they lie."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.distributions import BaseDistribution
from pydantic import ValidationError

from sculpt.config import Study
from sculpt.errors import ConfigError, SculptWarning, StorageError
from sculpt.registry import load_plugins
from sculpt.search.archive.contents import (
    FORMAT,
    FORMAT_FAMILY,
    RECORDS,
    Head,
    Line,
    Part,
    distribution_of,
    trial_of,
)
from sculpt.search.artifacts.artifact_store import ArtifactStore
from sculpt.search.artifacts.location import FILES, RECORD_FILE
from sculpt.search.references import STUDY_FILE
from sculpt.search.storage.optuna_names import experimental_accepted
from sculpt.search.storage.study_storage import MemoryStorage
from sculpt.search.store import STORE_FORMAT, TOTAL, Store


class ArchivedFiles(ArtifactStore):
    """The records of an archive; what is written beside them stays in memory.

    Args:
        folder: Of the archive.
        records: Names of the files that it holds.
    """

    def __init__(self, folder: Path, records: list[str]) -> None:
        super().__init__(folder / RECORDS)
        self._archive, self._records = folder, records
        self._written: dict[str, bytes] = {}

    def check(self) -> None:
        """Do nothing: memory can be written."""

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep a file until this process ends; an archive is as it was committed."""
        self._written[artifact_id] = content_body.read()

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open a file to read it.

        Raises:
            ArtifactNotFound: there is none of this name.
            StorageError: it is the record of a trial and was not archived, or is damaged.
        """
        if artifact_id in self._written:
            return BytesIO(self._written[artifact_id])
        if not artifact_id.endswith(".json"):
            return super().open_reader(artifact_id)
        if artifact_id not in self._records:
            raise StorageError(
                f"a trial's record must have been archived to be read, but {self._archive} has no "
                f"{RECORDS}/{artifact_id}: it holds those of {len(self._records)} trials; archive "
                "the study with --records all, or ask it itself"
            )
        _, text = _load(self._archive, f"{RECORDS}/{artifact_id}")
        return BytesIO(text)


def read_archive(folder: Path) -> Store:
    """Read an archive, and check all of it but the records, which are read when asked for.

    A plug-in that is not installed is a warning: only what it registers is missing.

    Args:
        folder: As `sculpt archive` wrote it.

    Raises:
        StorageError: it is damaged, or of a newer format; the message names the file.
    """
    head = _read_head(folder)
    settings = head.settings | {"storage": str(folder.absolute())}
    try:
        config = Study.model_validate(settings)
    except (ValidationError, ConfigError) as error:
        raise damaged(
            folder / STUDY_FILE,
            f"its settings are none of a study that this version knows ({_first(error)}); sculpt "
            f"{head.sculpt} wrote it",
        ) from None
    try:
        load_plugins(config.plugins)
    except ConfigError as error:
        warnings.warn(f"{folder}: {error}; reading goes on without", SculptWarning, stacklevel=3)
    storage = MemoryStorage()
    parts = head.studies
    files = [f"{trial}.json" for trial in head.records]
    with _quiet():
        name, file = f"{head.study}/base", folder / "base.jsonl"
        base = _read_part(storage, name, file, parts.base, "base.json")
        name, file = head.study, folder / "candidates.jsonl"
        candidates = _read_part(storage, name, file, parts.candidates, "{number}.json")
        confirmation = None
        if parts.confirmation:
            name, file = f"{head.study}/confirm", folder / "confirmation.jsonl"
            confirmation = _read_part(storage, name, file, parts.confirmation, None)
    for study in (base, candidates):  # as one that was run has them
        study.set_user_attr("images", head.images)
        study.set_user_attr(TOTAL, head.total)
        study.set_user_attr("config", json.dumps(head.settings))
        study.set_user_attr("sculpt_format", STORE_FORMAT)
    archived = ArchivedFiles(folder, files)
    return Store(config, storage, base, candidates, archived, confirmation, archive=folder)


def damaged(file: Path, problem: str) -> StorageError:
    """Return the error of a file that is not as it was written."""
    return StorageError(
        f"{file}: an archive must be as sculpt archive wrote it, but {problem}; restore the folder "
        "(git checkout), or archive the study anew"
    )


def _read_head(folder: Path) -> Head:
    document, _ = _load(folder, STUDY_FILE)
    written = document.get("format") if isinstance(document, dict) else None
    if written != FORMAT:
        if isinstance(written, str) and written.startswith(FORMAT_FAMILY):
            raise StorageError(
                f"{folder / STUDY_FILE}: an archive must be of the format {FORMAT}, but is of "
                f"{written}; upgrade sculpt"
            )
        raise damaged(folder / STUDY_FILE, f"its format is {written!a:.60} and not {FORMAT}")
    try:
        return Head.model_validate(document)
    except ValidationError as error:
        raise damaged(folder / STUDY_FILE, _first(error)) from None


def _read_part(
    storage: MemoryStorage, name: str, file: Path, part: Part, record: str | None
) -> optuna.Study:
    """Return an Optuna study with its trials, each of which is told what its record is called."""
    with experimental_accepted():
        study = optuna.create_study(study_name=name, storage=storage, directions=part.directions)
        if part.metric_names is not None:
            study.set_metric_names(part.metric_names)
    for key, value in part.user_attrs.items():
        study.set_user_attr(key, value)
    study_id = storage.get_study_id_from_name(name)
    usual: dict[str, BaseDistribution] = {}
    try:
        usual = {key: distribution_of(written) for key, written in part.distributions.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(file.parent / STUDY_FILE, f"a distribution is none ({error})") from None
    lines = _lines(file)
    if len(lines) != part.trials:
        raise damaged(
            file, f"it has {len(lines)} lines where {STUDY_FILE} says {part.trials} trials"
        )
    for number, text in enumerate(lines):
        try:
            line = Line.model_validate(json.loads(text))
            if line.number != number:
                raise ValueError(f"it is trial {line.number}")
            trial = trial_of(line, usual)
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(
                file, f"line {number + 1} is not trial {number} ({_first(error)})"
            ) from None
        if record and line.state == "COMPLETE":
            trial.system_attrs |= {FILES: {RECORD_FILE: record.format(number=number)}}
        storage.create_new_trial(study_id, template_trial=trial)
    return study


def _lines(file: Path) -> list[bytes]:
    text = _text(file)
    return text.removesuffix(b"\n").split(b"\n") if text else []


def _load(folder: Path, name: str) -> tuple[Any, bytes]:
    """Return what a JSON file holds, and its text."""
    text = _text(folder / name)
    try:
        return json.loads(text), text
    except ValueError as error:
        raise damaged(folder / name, f"it is not JSON ({error})") from None


def _text(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise damaged(file, f"the file cannot be read ({error.strerror or error})") from None


def _first(error: Exception) -> str:
    """Return what is wrong, on one line."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling that studies are made in memory."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
