"""Checking files before they are read, and replacing files and folders atomically."""

import ctypes
import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/sculpt`, or `~/.cache/sculpt` where that is not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sculpt"


def check_file(path: str | Path, most_bytes: int | None = None) -> None:
    """Refuse what cannot be read to its end: a folder, a pipe, a device, or too large a file.

    Raises:
        OSError: it is none that can be read; `strerror` says why.
    """
    try:
        found = os.stat(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name holds NUL", str(path)) from error
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device", str(path))
    if most_bytes is not None and found.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", str(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new file beside `path` to write to; when the block ends, it replaces `path`.

    It is flushed to the disk first. If the block raises, `path` is unchanged.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, no longer than that of `path` may be; not from `tempfile`, whose files only
    # their owner may read.
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path` to write to; when the block ends, it replaces `path`.

    An older folder is removed afterwards; behind a link it is the one that the link leads to. Where
    the system can exchange two names atomically (Linux, on most file systems), `path` always
    exists; elsewhere the old folder is named `.….old` for a moment. If the block raises, `path` is
    unchanged.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part")
    part.mkdir()
    try:
        yield part
        for folder, _, files in os.walk(part):
            for name in files:
                with open(os.path.join(folder, name), "rb") as written:
                    os.fsync(written.fileno())
        if not path.exists():
            part.rename(path)
        elif not _exchange(part, path):
            old = part.with_suffix(".old")
            path.rename(old)
            try:
                part.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders atomically; return whether the system could."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
