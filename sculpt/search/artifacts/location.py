"""Where the files of a study are, beside its storage or elsewhere, the same for all its workers."""

from io import BytesIO
from pathlib import Path
from uuid import uuid4

import optuna

from sculpt.config import Study
from sculpt.errors import StorageError
from sculpt.search.artifacts.artifact_store import ArtifactStore

KEY = "artifacts_key"
"""Attribute of a study: what tells it from others of its name. A file among the artifacts is named
by it, so that workers see whether they all keep them in one place."""

RECORD_FILE = "record.json"

FILES = "sculpt:files"
"""System attribute of a trial: names of its files to ids of its artifacts. Optuna gives a retry the
artifacts of the attempts before it, in no order."""


def storage_file(config: Study) -> Path:
    """Return the file beside which a study keeps other files; for a server, one in `runs/`."""
    location = config.storage_url.removeprefix("sqlite:///")
    return Path(location) if location.endswith(".db") else Path("runs", f"{config.study}.db")


def artifacts_of(config: Study) -> ArtifactStore:
    """Return where a study keeps its artifacts: where it says, or beside its storage's file."""
    return ArtifactStore(config.artifacts or _folder_beside(config))


def _folder_beside(config: Study) -> Path:
    file = storage_file(config)
    return file.with_name(f"{file.stem}-artifacts")


def artifacts_to_read(config: Study) -> ArtifactStore:
    """Return where a study's artifacts were kept when it last ran.

    A folder that is not there was moved together with the storage's file, to lie beside it.
    """
    artifacts = artifacts_of(config)
    if artifacts.folder and not artifacts.folder.exists():
        return ArtifactStore(_folder_beside(config))
    return artifacts


def share_artifacts(study: optuna.Study, artifacts: ArtifactStore) -> None:
    """Make sure that all who run a study keep its artifacts in one place.

    Raises:
        StorageError: they were kept elsewhere so far.
    """
    key = study.user_attrs.get(KEY)
    if key is None:  # also of a study that an older version started
        key = uuid4().hex[:16]
        text = f'{{"study": "{study.study_name}", "about": "its artifacts are kept here"}}\n'
        artifacts.write(_marker(study.study_name, key), BytesIO(text.encode()))
        study.set_user_attr(KEY, key)
    elif not artifacts.has(_marker(study.study_name, key)):
        raise StorageError(
            f"artifacts must be reachable by all workers of a study, but those of "
            f"{study.study_name!r} are kept elsewhere: {artifacts.location} has no file "
            f"{_marker(study.study_name, key)}. Set `artifacts` to a location that all machines "
            "reach; if the files have moved, copy them there; to go on without them, make an empty "
            "file of that name there"
        )


def _marker(study: str, key: str) -> str:
    return f"study-{study}-{key}.json"
