"""A study as a folder of text: `archive`."""

from pathlib import Path
from typing import Literal, get_args

from sculpt.errors import check_choice
from sculpt.presentation.content import collect
from sculpt.results.records import Results, open_results
from sculpt.storage.archive.writing import check_replaceable, write_archive

Records = Literal["report", "all", "none"]


def archive(
    study: Results | str | Path,
    directory: str | Path | None = None,
    *,
    records: Records = "report",
) -> Path:
    """Write what a study has found into a folder of small text files, to be committed to git.

    Whatever asks a study takes the folder in its place and gives the same answers. It holds no
    networks, and nothing that tells where things lay on the machines that ran the study. The same
    results give the same bytes. Of a running study, trials that run are read as interrupted.

    Args:
        study: Its results, or whatever `open_results` takes: an archive can be archived, too.
        directory: A new folder, or an older archive of this study, which is replaced as a whole; by
            default `results/NAME`.
        records: Of which trials the whole record is written, with layers and learning curves: those
            that a ranking or a report reads, all, or none.

    Returns:
        The folder.

    Raises:
        InputError: the folder holds something else, or cannot be written; nothing was changed.
        StorageError: there is no such study, or a record is not where it was kept.
    """
    check_choice("records", records, get_args(Records))
    results = study if isinstance(study, Results) else open_results(study)
    folder = Path(directory or Path("results", results.config.study))
    check_replaceable(folder, results.config.study)
    chosen: list[int | str] | None = []
    if records == "all":
        chosen = None
    elif records == "report":
        chosen = _shown(results.snapshot())
    write_archive(results.store, folder, chosen)
    return folder


def _shown(results: Results) -> list[int | str]:
    """Return the trials whose records a report reads, and a ranking beside published errors."""
    content = collect(results)
    published = content.document["published"]
    rows = published["rows"] if published and published["published_protocol"] else []
    unread = published["unread"] if published else []
    finished = [row["trial"] for row in rows if row["trial"] is not None]
    read = [trial for trial in finished if trial not in unread]
    return list(dict.fromkeys([*content.details, *read]))
