"""What is given for a study: its file, its name, or the folder of an archive of it."""

from pathlib import Path
from typing import NoReturn

from sculpt.errors import InputError

STUDY_FILE = "study.json"
"""The file that an archive is known by."""


def is_archive(reference: str | Path, storage: str | None = None) -> bool:
    """Return whether what was given for a study is the folder of an archive, sound or not.

    Args:
        reference: A study file, the name of a study, or a folder.
        storage: Where the study is kept, if that was said. What can be a name then is one, whatever
            folders lie around; `./NAME` is a folder.
    """
    folder = Path(reference)
    if not folder.is_dir():
        return False
    if str(reference) == folder.name:  # which a study may have for its name
        return storage is None and (folder / STUDY_FILE).exists()
    return not folder.name.endswith((".yaml", ".yml"))


def refuse_archive(folder: str | Path, rule: str) -> NoReturn:
    """Say that an archive will not do.

    Raises:
        InputError: always; it begins with the rule that an archive breaks.
    """
    raise InputError(
        f"{rule}, but {folder} is an archive, which holds results and no networks; give the study "
        f"itself, or run it again from its settings (sculpt report {folder} shows them)"
    )
