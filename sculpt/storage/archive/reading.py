"""An archive read back: its Optuna studies in memory, its records where they lie."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from pydantic import ValidationError

from sculpt.config import Study
from sculpt.errors import ConfigError, StorageError
from sculpt.files import check_file
from sculpt.storage.archive.contents import (
    FORMAT,
    FORMAT_FAMILY,
    RECORDS,
    ArchivedStudy,
    ArchivedTrial,
    ArchiveHead,
    read_distributions,
)
from sculpt.storage.artifacts import ArtifactStore
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.store import ARCHIVE_FILE, PARTS, STORE_FORMAT, TOTAL, Store
from sculpt.storage.study_storage import MemoryStorage
from sculpt.storage.trial_files import FILES, RECORD_FILE

_RECORDS = {
    "base": "base.json",
    "candidates": "{number}.json",
    "confirmation": None,
    "opponents": "opponent-{number}.json",
}
"""The name of the record of a trial in each Optuna study."""


class ArchivedFiles(ArtifactStore):
    """The records of an archive, by file name; files written beside them stay in memory."""

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
        """Open a file; ArtifactNotFound if there is none of this name, StorageError if it is the
        record of a trial and was not archived, or is damaged."""
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
        _, text = _load(self._archive / RECORDS / artifact_id)
        return BytesIO(text)


def read_archive(folder: Path) -> Store:
    """Read an archive, and check all of it but the records, which are read when asked for.

    It may come from anybody: no plug-in that it names is imported.

    Raises:
        StorageError: It is damaged, or of a newer format; the message names the file.
    """
    head = _read_head(folder / ARCHIVE_FILE)
    settings = head.settings | {"storage": str(folder.absolute())}
    try:
        config = Study.model_validate(settings)
    except (ValidationError, ConfigError) as error:
        raise damaged(
            folder / ARCHIVE_FILE,
            f"its settings are none of a study that this version knows ({_first(error)}); sculpt "
            f"{head.sculpt} wrote it",
        ) from None
    storage = MemoryStorage()
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # or it tells of studies made in memory
    try:
        studies = {
            part: _read_study(
                storage, head.study + PARTS[part], folder / f"{part}.jsonl", written, record
            )
            for part, record in _RECORDS.items()
            if (written := getattr(head.studies, part))
        }
    finally:
        optuna.logging.set_verbosity(level)
    base, candidates = studies["base"], studies["candidates"]
    for study in (base, candidates):  # as one that was run has them
        study.set_user_attr("images", head.images)
        study.set_user_attr(TOTAL, head.total)
        study.set_user_attr("config", json.dumps(head.settings))
        study.set_user_attr("sculpt_format", STORE_FORMAT)
    files = ArchivedFiles(folder, [f"{trial}.json" for trial in head.records])
    return Store(config, storage, artifacts=files, archive=folder, **studies)


def damaged(file: Path, problem: str) -> StorageError:
    """Return the error of a file that is not as it was written."""
    return StorageError(
        f"{file}: an archive must be as sculpt archive wrote it, but {problem}; restore the folder "
        "(git checkout), or archive the study anew"
    )


def _read_head(file: Path) -> ArchiveHead:
    document, _ = _load(file)
    written = document.get("format") if isinstance(document, dict) else None
    if isinstance(written, str) and written != FORMAT and written.startswith(FORMAT_FAMILY):
        raise StorageError(
            f"{file}: an archive must be of the format {FORMAT}, but is of {written}; upgrade "
            "sculpt"
        )
    if written != FORMAT:
        raise damaged(file, f"its format is {written!a:.60} and not {FORMAT}")
    try:
        return ArchiveHead.model_validate(document)
    except ValidationError as error:
        raise damaged(file, _first(error)) from None


def _read_study(
    storage: MemoryStorage, name: str, file: Path, written: ArchivedStudy, record: str | None
) -> optuna.Study:
    with experimental_accepted():
        study = optuna.create_study(study_name=name, storage=storage, directions=written.directions)
        if written.metric_names is not None:
            study.set_metric_names(written.metric_names)
    for key, value in written.user_attrs.items():
        study.set_user_attr(key, value)
    study_id = storage.get_study_id_from_name(name)
    try:
        usual = read_distributions(written.distributions)
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(file.parent / ARCHIVE_FILE, f"a distribution is none ({error})") from None
    lines = _text(file).splitlines()
    if len(lines) != written.trials:
        raise damaged(
            file, f"it has {len(lines)} lines where {ARCHIVE_FILE} says {written.trials} trials"
        )
    for number, line in enumerate(lines):
        try:
            archived = ArchivedTrial.model_validate(json.loads(line))
            if archived.values is not None and len(archived.values) != len(written.directions):
                raise ValueError(f"it must have {len(written.directions)} values")
            if archived.number != number:
                raise ValueError(f"it is trial {archived.number}")
            trial = archived.to_optuna(usual)
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(
                file, f"line {number + 1} is not trial {number} ({_first(error)})"
            ) from None
        if record and archived.state == "COMPLETE":
            trial.system_attrs |= {FILES: {RECORD_FILE: record.format(number=number)}}
        storage.create_new_trial(study_id, template_trial=trial)
    return study


def _load(file: Path) -> tuple[Any, bytes]:
    text = _text(file)
    try:
        return json.loads(text), text
    except ValueError as error:
        raise damaged(file, f"it is not JSON ({error})") from None


def _text(file: Path) -> bytes:
    try:
        check_file(file)
        return file.read_bytes()
    except OSError as error:
        raise damaged(file, f"the file cannot be read ({error.strerror or error})") from None


def _first(error: Exception) -> str:
    """Return the first fault, on one line."""
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
    return " ".join(f"{type(error).__name__}: {error}".split())
