"""Files that others see whole or not at all, whenever their writer dies."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file beside `path` to write to; when the block ends, it takes its place.

    What was written is flushed to the disk first. If the block raises, `path` is left as it was.

    Raises:
        OSError: the folder cannot be made, or nothing can be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer; and not from `tempfile`, whose files only their owner
    # may read.
    part = path.with_name(f"{path.name}-{uuid4().hex}.part")
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
