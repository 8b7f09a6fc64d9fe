"""Conditions over recorded trials."""

import pandas as pd
import pytest

from sculpt.errors import InputError
from sculpt.results.pareto.condition import holds

TABLE = pd.DataFrame(
    {
        "study": "tiny",
        "trial": ["base", 0, 1],
        "state": "complete",
        "budget": [4874, 2000, 4874],
        "params.budget": [None, "small", "base"],
        "params.widening": [None, 2.0, 3.0],
        "params.pruning.criterion": [None, "synflow", "it's @home"],
        "params.pruning.repair": [None, True, False],
        "val_error": [0.2, 0.1, None],
        "val_errors": [[0.2], [0.1], []],
    },
    index=[5, 5, 7],  # what puts tables together may leave any
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("widening > 2", [False, False, True]),
        ("`params.widening` > 2", [False, False, True]),
        ("budget > 2000", [True, False, True]),
        ("`params.budget` == 'small'", [False, True, False]),
        ('`pruning.criterion` == "synflow"', [False, True, False]),
        ('`pruning.criterion` == "it\'s @home"', [False, False, True]),
        ("`pruning.criterion`.str.startswith('syn')", [False, True, False]),
        ("`pruning.repair` == True", [False, True, False]),
        ("`pruning.repair`", [False, True, False]),
        ("trial == 'base' or trial == 1", [True, False, True]),
        ("widening in [2, 4] and study == 'tiny' and state == 'complete'", [False, True, False]),
        ("val_error < 0.15 | widening == 3", [False, True, True]),
        ("val_error.isna()", [False, False, True]),
        ("0.05 < val_error < 0.15", [False, True, False]),
    ],
)
def test_conditions(where, expected):
    assert holds(TABLE, where).tolist() == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("depth > 3", "name 'depth' is not defined"),
        ("widening +", "must be a condition over `pruning.criterion`, `pruning.repair`, budget, "),
        ("widening", "does not say yes or no"),
        ("widening = 2", "does not say yes or no"),
        ("1 < 2", "does not say yes or no"),
        ("val_error.max()", "does not say yes or no"),
        ("(widening > 2).head(1)", "does not say yes or no"),
        ("trial", "does not say yes or no"),
        ("trial > 3", "must be a condition over"),
        ("pruning.criterion == 'synflow'", "name 'pruning' is not defined"),
        ("TABLE.empty", "name 'TABLE' is not defined"),
        ("widening > @TABLE", "without @"),
        (r"study == 'it\'s' or widening > @x or study == 'a'", "without @"),
        ("", "must be a condition over"),
    ],
)
def test_what_is_no_condition(where, message):
    with pytest.raises(InputError) as error:
        holds(TABLE, where)
    assert message in str(error.value)
    assert repr(where) in str(error.value)
