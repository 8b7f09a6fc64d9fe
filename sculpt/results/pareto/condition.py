"""A condition on trials, as people type it: `--where`."""

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sculpt.errors import InputError

_QUOTED = re.compile(r"`[^`]*`|'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


def holds(table: pd.DataFrame, where: str) -> NDArray[np.bool_]:
    """Return the rows of a table of trials for which a condition holds, as a mask (n,).

    Args:
        table: In the columns of `Results.trials`.
        where: In pandas query syntax over these columns. Sampled parameters also go by their bare
            names; a name with dots stands in backticks: "`pruning.repair` == True".

    Raises:
        InputError: it is no condition over the columns, or names a variable of Python with @.
    """
    if "@" in _QUOTED.sub("", where):
        raise InputError(
            f"--where must be a condition over what is recorded, without @, but got {where!r}; "
            "write the value itself"
        )
    bare = {str(column).removeprefix("params."): column for column in table}
    # A sampled budget may be a word; the column of that name has its number.
    sampled = {name: table[column] for name, column in bare.items() if name not in table}
    queried = table.assign(**sampled)
    try:
        found = queried.eval(where, engine="python", local_dict={}, global_dict={})
        return _as_mask(found, len(table))
    except Exception as error:  # pandas raises whatever the expression leads to
        named = sorted(name if name.isidentifier() else f"`{name}`" for name in bare)
        raise InputError(
            f"--where must be a condition over {', '.join(named)}, but got {where!r} ({error})"
        ) from error


def _as_mask(found: object, count: int) -> NDArray[np.bool_]:
    if isinstance(found, pd.Series) and len(found) == count:
        # A parameter that the base has not is missing there, so its column is of objects.
        answers = found.astype(object).where(found.notna(), False)
        if answers.map(lambda answer: isinstance(answer, bool | np.bool_)).all():
            return answers.to_numpy(dtype=np.bool_)
    raise ValueError("it does not say yes or no of each trial; == compares")
