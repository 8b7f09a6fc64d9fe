"""The files of an image folder: `train/<class>/` and `test/<class>/`, at any depth below."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from sculpt.errors import DataError

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Extensions of image files, in lower case; `sculpt.data.decoding.FORMATS` reads them."""

MOST_NAMED = 10
"""Folders that a message about files that are left out names."""


class ImageTree:
    """The class folders of both splits, and the images in them.

    Entries whose names begin with a dot are passed over: editors and file managers keep copies
    there. Whatever else is not read is counted. No folder is entered twice, however many links
    lead to it, and none that the tree itself lies in.

    Attributes:
        classes: Names of the classes, in alphabetical order, the same for both splits.

    Raises:
        DataError: a split has no class folders, one has others, or two of them are one folder.
    """

    def __init__(self, root: Path):
        self._root = root
        self._read: dict[str, int] = {}
        self._left_out: dict[str, Counter[str]] = {}
        for split in ("train", "test"):
            if not (root / split).is_dir():
                raise DataError(_no_classes(root / split, "is not a folder"))
        self._entered = {_identity(folder): str(folder) for folder in (root, *root.parents)}
        self._enter_once(root / "train")
        self._enter_once(root / "test")
        self._folders = {split: self._class_folders(split) for split in ("train", "test")}
        train, test = (set(folders) for folders in self._folders.values())
        if only_one := sorted(train ^ test):
            raise DataError(
                "train and test must hold the same class folders, but only one of them under "
                f"{root} holds: {', '.join(only_one)}; add or remove those folders"
            )
        self.classes = sorted(train)

    def images(self, split: str, name: str) -> list[str]:
        """Return the images of a class, in the order of `torchvision.datasets.ImageFolder`.

        Raises:
            DataError: there are none, or a folder cannot be read.
        """
        files = [path for _, _, path in sorted(self._files(split, name))]
        self._read[f"{split}/{name}"] = len(files)
        if not files:
            left_out = self._left_out.get(f"{split}/{name}")
            raise DataError(
                f"every class folder under {self._root / split} must hold images, but {name} holds "
                f"none{f' ({_listed(left_out)} left out)' if left_out else ''}; images end in "
                f"{', '.join(ENDINGS)}: add some, or remove the folder from both train and test"
            )
        return files

    def left_out(self) -> str | None:
        """Say for each folder that was listed what is not read of it, and why; None if all is."""
        rows = [
            f"{folder}: {self._read.get(folder, 0)} read, {_listed(reasons)} left out"
            for folder, reasons in self._left_out.items()
        ]
        if not rows:
            return None
        more = f"; and {len(rows) - MOST_NAMED} more folders" if len(rows) > MOST_NAMED else ""
        return (
            f"not everything under {self._root} is read ({'; '.join(rows[:MOST_NAMED])}{more}); "
            f"images lie in the folder of a class and end in {', '.join(ENDINGS)}: convert or move "
            "the others, or remove them"
        )

    def _class_folders(self, split: str) -> dict[str, str]:
        folder, found = self._root / split, {}
        for entry in _visible(folder):
            if not entry.is_dir():
                self._leave_out(split, "files outside of class folders")
                continue
            if entry.name.encode(errors="replace").decode() != entry.name:
                raise DataError(
                    "the name of a class folder must be text that a file can hold, but that of "
                    f"{entry.path!r} is not UTF-8; rename it"
                )
            self._enter_once(entry)
            found[entry.name] = entry.path
        if not found:
            raise DataError(_no_classes(folder, "holds none"))
        return found

    def _enter_once(self, folder: Path | os.DirEntry[str]) -> None:
        path = os.fspath(folder)
        other = self._entered.setdefault(_identity(folder), path)
        if other != path:
            raise DataError(
                "train and test, and every class in them, must be folders of their own, but "
                f"{path} is {other} under another name; remove the link"
            )

    def _files(self, split: str, name: str) -> Iterator[tuple[str, str, str]]:
        """Yield folder, name and path of each image of a class."""
        pending = [self._folders[split][name]]
        while pending:
            folder = pending.pop()
            for entry in _visible(folder):
                ending = os.path.splitext(entry.name)[1].lower()
                if entry.is_dir():
                    if self._entered.setdefault(_identity(entry), entry.path) == entry.path:
                        pending.append(entry.path)
                    else:
                        self._leave_out(f"{split}/{name}", "links to folders that are read anyway")
                elif ending in ENDINGS:
                    yield folder, entry.name, entry.path
                else:
                    self._leave_out(f"{split}/{name}", ending or "without an ending")

    def _leave_out(self, folder: str, reason: str) -> None:
        self._left_out.setdefault(folder, Counter())[reason] += 1


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, by name."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"every folder of images must be readable, but {folder} is not ({error.strerror}); "
            "change its permissions, or remove it"
        ) from error
    return sorted(found, key=lambda entry: entry.name)


def _identity(folder: Path | os.DirEntry[str]) -> tuple[int, int]:
    """Return device and inode of a folder, the same under all its names."""
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())


def _no_classes(folder: Path, fault: str) -> str:
    return (
        f"{folder} must hold one folder of images per class, but it {fault}; sort the images into "
        "train/<class>/ and test/<class>/, or correct data.root"
    )
