"""Several studies joined: their finished trials, and the notes on what cannot be compared."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from sculpt.config import Study
from sculpt.errors import InputError
from sculpt.results.records import Results


def check_distinct(studies: Sequence[Results]) -> None:
    """Check that the rows of studies can be told apart.

    Raises:
        InputError: there is no study, one is given twice, or two have the same name.
    """
    if not studies:
        raise InputError("a front must be of at least one study, but got none; give one")
    seen: dict[str, str] = {}
    for config in (results.config for results in studies):
        name, place = config.study, _place(config)
        if seen.get(name) == place:
            raise InputError(f"each study must be given once, but got {name!r} twice; leave one")
        if name in seen:
            raise InputError(
                f"studies must have different names, but got two named {name!r} from different "
                "storages; run one of them under another name (--set study=NAME)"
            )
        seen[name] = place


def finished_trials(studies: Sequence[Results]) -> pd.DataFrame:
    """Return the finished trials of all studies, in the columns of `Results.trials`, and after
    those of each study its opponents.

    Columns that one study lacks are missing there. Without any finished trial the table has the
    columns study, trial, role and budget, and no rows.
    """
    tables = [table for results in studies if len(table := _finished(results))]
    if not tables:
        return pd.DataFrame(columns=["study", "trial", "role", "budget"])
    if len(tables) == 1:
        return tables[0].reset_index(drop=True)
    columns = list(dict.fromkeys(column for table in tables for column in table))
    # Columns without a value would have a say in the types of the others.
    filled = [table.dropna(axis="columns", how="all") for table in tables]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def _finished(results: Results) -> pd.DataFrame:
    table, opponents = results.complete, results.opponents
    if not len(opponents):
        return table
    finished = opponents[opponents["state"] == "complete"].drop(columns="arm")
    return pd.concat([table, finished], ignore_index=True) if len(finished) else table


def differences(studies: Sequence[Results]) -> list[str]:
    """Return a note for each study that cannot be compared with the first, and why."""
    faults: dict[str, Callable[[Results], object]] = {
        "were not trained on the same images: their errors": lambda r: r.images,
        "have other metrics: their errors": lambda r: r.metric,
        "count parameters by different rules: their sizes": lambda r: r.config.counting,
    }
    first = studies[0]
    return [
        f"{first.config.study} and {other.config.study} {fault} are not comparable"
        for fault, of in faults.items()
        for other in studies[1:]
        if of(other) != of(first)
    ]


def _place(config: Study) -> str:
    location = config.storage_url.removeprefix("sqlite:///")
    return str(Path(location).resolve()) if location.endswith(".db") else location
