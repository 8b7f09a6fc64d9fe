"""Opening a study that has been run, to read it or to work on it; and starting one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from sculpt.config import Study, default_storage
from sculpt.documents import flatten, read_yaml
from sculpt.errors import ConfigError, StorageError
from sculpt.registry import OBJECTIVES
from sculpt.storage.archive.reading import read_archive
from sculpt.storage.artifacts import ArtifactStore, artifacts_of, share_artifacts
from sculpt.storage.failures import in_one_line
from sculpt.storage.optuna_names import experimental_accepted
from sculpt.storage.store import PARTS, STORE_FORMAT, TOTAL, Store, is_archive
from sculpt.storage.study_storage import StudyStorage, open_storage


def open_store(reference: str | Path, storage: str | None = None) -> Store:
    """Open a study that has been run: by a study file, its name, or the folder of an archive.

    A file of one study (NAME.db) is a name, too. It may come from anybody: no plug-in that it names
    is imported. It is kept in `storage`, if not where the file says, or in `runs/NAME.db`.

    Raises:
        StorageError: There is no such study there, or it is of a newer format, or damaged.
        ConfigError: The study file is no YAML or names no study.
    """
    if is_archive(reference, storage):
        return read_archive(Path(reference))
    name, url = str(reference), storage
    if name.endswith(".db") and storage is None:
        return open_study(None, name)
    if name.endswith((".yaml", ".yml")):
        # Only these two: the settings stand in the storage, and the file may have changed.
        document = read_yaml(Path(name))
        if not isinstance(document.get("study"), str):
            given = document.get("study")
            raise ConfigError(f"{reference}: study: must be a name, but got {given!r}")
        name, url = document["study"], storage or document.get("storage")
    return open_study(name, str(url or default_storage(name)))


def open_study(name: str | None, url: str) -> Store:
    """Open a study that has been run, by its name and where it is kept; see `open_store`.

    Without a name it is the only one that is kept there.
    """
    opened = open_storage(url, create=False)
    names = optuna.get_all_study_names(opened)
    known = [n for n in names if not n.endswith(tuple(filter(None, PARTS.values())))]
    if name is None and len(known) == 1:
        (name,) = known
    if name is None:
        opened.close()
        raise StorageError(
            f"a file that is given in place of a study's name must have one study, but {url} has "
            f"{len(known)} ({', '.join(known) or 'none'}); give the name, and --storage {url}"
        )
    if name not in known:
        opened.close()
        raise StorageError(
            f"a study must have been started to be read, but {name!r} is not among those kept "
            f"here ({', '.join(known) or 'none'}); run it first, or give another --storage"
        )

    def load(suffix: str) -> optuna.Study:
        return optuna.load_study(study_name=name + suffix, storage=opened)

    candidates = load("")
    stored = _settings(candidates).model_copy(update={"storage": url})
    opened.allow_silence(stored.search.grace_seconds)
    beside: dict[str, Any] = {
        part: load(PARTS[part]) if name + PARTS[part] in names else None
        for part in ("confirmation", "opponents")
    }
    artifacts = artifacts_of(stored, moved=True)
    return Store(stored, opened, load(PARTS["base"]), candidates, artifacts, **beside)


def start_store(config: Study, images: str, total: int) -> Store:
    """Open a study to run it, and make what is missing.

    `images` is the fingerprint of its images and their split, `total` what it is asked for now.

    Raises:
        ConfigError: A study of this name was started with other settings, or other images.
        StorageError: The storage cannot be used, or its artifacts are not where they were.
    """
    artifacts = artifacts_of(config)
    artifacts.check()
    storage = open_storage(
        config.storage_url, create=True, grace_seconds=config.search.grace_seconds
    )
    # From the start if a server's connection is lost on the way: all of it may be done twice.
    studies = storage.patience(_make_studies, config, storage, artifacts, images, total)
    return Store(config, storage, artifacts=artifacts, **studies)


def _make_studies(
    config: Study, storage: StudyStorage, artifacts: ArtifactStore, images: str, total: int
) -> dict[str, Any]:
    """Make what is missing of the Optuna studies of a study; return them by their part."""
    directions = [OBJECTIVES.get(name).direction for name in config.search.objectives]
    # Candidates last: a study that can be found by its name is complete.
    with storage.lock():
        if config.study in optuna.get_all_study_names(storage):
            # Another program's of this name is refused before anything is made beside it.
            found = optuna.load_study(study_name=config.study, storage=storage)
            if len(found.directions) != len(directions) or found.get_trials(deepcopy=False):
                _settings(found)
        studies: dict[str, Any] = {}
        for part in ("base", "candidates"):
            study = optuna.create_study(
                study_name=config.study + PARTS[part],
                storage=storage,
                directions=directions,
                load_if_exists=True,
            )
            # Without trials it may be one whose making was interrupted: make it anew. They are
            # looked at last: to read thousands under the lock would keep all others waiting.
            known = "sculpt_format" in study.user_attrs or study.get_trials(deepcopy=False)
            if known:
                _refuse_other_settings(config, _settings(study))
                _refuse_other_images(config, images, _attribute(study, "images"))
            else:
                with experimental_accepted():
                    study.set_metric_names(config.search.objectives)
                study.set_user_attr("images", images)
            if study.study_name == config.study:
                share_artifacts(study, artifacts)
            study.set_user_attr(TOTAL, total)
            # With spaces between its parts: Optuna's dashboard shows it, and wraps lines there.
            study.set_user_attr("config", json.dumps(config.model_dump(mode="json")))
            if not known:
                study.set_user_attr("sculpt_format", STORE_FORMAT)  # last: now it can be read
            studies[part] = study
        names = optuna.get_all_study_names(storage)
        beside: list[tuple[str, Any, Any]] = [
            ("confirmation", config.search.confirm, ["minimize"]),
            ("opponents", config.opponents, directions),
        ]
        for part, wanted, ways in beside:
            name = config.study + PARTS[part]
            if wanted or name in names:
                studies[part] = optuna.create_study(
                    study_name=name, storage=storage, directions=ways, load_if_exists=True
                )
    return studies


def _attribute(study: optuna.Study, name: str) -> Any:
    attributes = study.user_attrs
    written = attributes.get("sculpt_format")
    ours = isinstance(written, int)
    if not isinstance(written, int) or written > STORE_FORMAT:
        raise StorageError(
            f"study {study.study_name!r} must have been written by sculpt in format "
            f"{STORE_FORMAT} or older, but its format is {written!a:.60}; "
            + ("upgrade sculpt" if ours else "it belongs to another program: rename yours")
        )
    if name not in attributes:
        raise _damaged(study, f"its attribute {name!r} is missing")
    return attributes[name]


def _settings(study: optuna.Study) -> Study:
    """Return the settings that a study was last run with."""
    try:
        return Study.model_validate(json.loads(_attribute(study, "config")))
    except (ValueError, TypeError) as error:
        raise _damaged(study, f"its settings are none ({in_one_line(error)})") from None


def _damaged(study: optuna.Study, problem: str) -> StorageError:
    return StorageError(
        f"study {study.study_name!r} must be as sculpt wrote it, but {problem}; restore its "
        "storage from a copy"
    )


def _refuse_other_settings(config: Study, before: Study) -> None:
    if config.fingerprint() == before.fingerprint():
        return
    old, new = flatten(before.identity()), flatten(config.identity())
    changed = [
        f"{key} (was {old.get(key)!r}, is {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    raise ConfigError(
        f"study {config.study!r} must be resumed with the settings it was started with, but "
        f"these differ: {'; '.join(changed)}; restore them, or give the study another name "
        "(--set study=NAME)"
    )


def _refuse_other_images(config: Study, images: str, stored: str) -> None:
    if images != stored:
        raise ConfigError(
            f"study {config.study!r} must be resumed on the images it was started with "
            f"(fingerprint {stored}), but those of {config.data.name} {config.data.options} are "
            f"others ({images}); restore them, or give the study another name (--set study=NAME)"
        )


def to_work_on(found: Store, config: Study, images: str) -> Store:
    """Return a study that was opened, with the settings of this machine, to work on it.

    Raises:
        ConfigError: It was started with other images than those of this fingerprint.
        InputError: The driver of its artifacts is not installed.
        StorageError: They cannot be written, or were kept elsewhere so far.
    """
    _refuse_other_images(config, images, found.images)
    store = replace(found, config=config, artifacts=artifacts_of(config))
    store.artifacts.check()
    with store.trials(store.candidates).storage.lock():
        share_artifacts(store.candidates, store.artifacts)
    return store
