"""Odd settings: what `check` lets pass runs, or ends as a recorded outcome.

The rest writes nothing. Settings are drawn from the schema: of a study, and of what is registered
with its options.
"""

import copy
import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import sculpt
from sculpt.config import Study
from sculpt.documents import assign, lookup
from sculpt.errors import InputError, SculptError, SculptWarning
from sculpt.registry import CRITERIA, DATASETS, INITIALIZERS, MODELS, options_schema
from sculpt.study_file import load_study
from studies import TINY

Leaf = dict[str, Any]
"""JSON schema of one value."""

OUTCOMES = ("NumericsError", "DryRankingError", "DeviceMemoryError", "BudgetError")
"""Errors of a trial that its numbers decide, and no file tells before."""

SMALL = {
    "training.epochs": [0, 1, 2],
    "training.batch_size": [2, 25, 10**9],
    "search.trials": [2, 3, "all"],
    "search.replicates": [1, 2],
    "search.confirm.seeds": [2],
    "search.confirm.top": [1, 10_000],
    "blocks": [1, 2, [1, 2, 1]],
    "stem_width": [1, 3],
    "widening": [1, 1.5],
    "depth": [10, 11, 16],
    "layers": [1, 2, 30],
    "units": [1, 7],
    "rounds": [1, 3],
}
"""Values of settings whose largest would take hours, or all of the memory."""

DATA = {"name": "digits", "train_images": 60, "validation_fraction": 0.5}
BASE = TINY | {
    "data": DATA,
    "diagnostics": {"jacobian_images": 2},
    "search": {"trials": 2, "replicates": 1, "grace_seconds": 2},
}
BASES: dict[str, dict[str, Any]] = {
    "resnet": {"model": {"name": "resnet", "blocks": 1, "stem_width": 3}},
    "wide_resnet": {"model": {"name": "wide_resnet", "depth": 10, "stem_width": 3}},
    "mlp": {
        "model": {"name": "mlp", "units": 8},
        "space": {"parameters": {"units": [16, 24]}},
    },
    "lenet_300_100": {
        "model": {"name": "lenet_300_100"},
        "space": {"parameters": {"activation": ["relu", "tanh"]}},
        "budget": {"sparsity": 0.9},
    },
}
SPACE = {"parameters": {"widening": [1.25, 1.5]}}


def leaves(schema: Leaf, whole: Leaf, key: str = "") -> Iterator[tuple[str, Leaf]]:
    """Yield the key and the schema of every value, the alternatives of one key apart."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    for alternative in schema.get("anyOf", []):
        yield from leaves(alternative, whole, key)
    for name, part in schema.get("properties", {}).items():
        yield from leaves(part, whole, f"{key}.{name}" if key else name)
    if schema.keys() & {"type", "enum", "const"} and "properties" not in schema:
        yield key, schema


def options() -> Iterator[tuple[str, str, str, Leaf]]:
    """Yield key of the choice, name, option and schema of everything registered."""
    places = {
        "model": MODELS,
        "pruning.initializer": INITIALIZERS,
        "pruning.criterion": CRITERIA,
        "data": DATASETS,
    }
    for place, registry in places.items():
        for name in registry.names():
            schema = options_schema(registry.get(name)).model_json_schema()
            for key, leaf in leaves(schema, schema):
                yield place, name, key, leaf


STUDY = Study.model_json_schema()
STUDY_LEAVES = [
    (key, leaf)
    for key, leaf in leaves(STUDY, STUDY)
    if key.partition(".")[0] not in ("space", "published", "plugins", "storage", "artifacts")
    and key not in ("study", "training.recipe")
]
OPTION_LEAVES = list(options())


def is_bounded(leaf: Leaf) -> bool:
    if leaf.get("type") == "array":
        return is_bounded(leaf["items"])
    low, high = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    free = leaf.get("type") in ("integer", "number") and "enum" not in leaf
    return not free or bool(leaf.keys() & low and leaf.keys() & high)


def test_every_number_has_bounds():
    found = [*STUDY_LEAVES, *((f"{name}.{key}", leaf) for _, name, key, leaf in OPTION_LEAVES)]
    assert len(found) > 100
    assert [key for key, leaf in found if not is_bounded(leaf)] == []
    assert not is_bounded({"type": "array", "items": {"type": "number", "minimum": 0}})


def values(key: str, leaf: Leaf) -> st.SearchStrategy[Any]:
    """Draw values of a setting: inside its bounds, at them, outside of them, and of other kinds."""
    other = [None, "odd", -1, 0, 1, 2, 0.5, 10**30, math.inf, math.nan, [], {}, True]
    name = key if key in SMALL else key.rpartition(".")[2]
    if name in SMALL:
        return st.sampled_from([*SMALL[name], *SMALL[name], *other])
    kind = leaf.get("type")
    if kind == "boolean":
        return st.sampled_from([True, False, True, False, "yes", 1, None])
    if kind in ("integer", "number") and "enum" not in leaf:
        low = leaf.get("minimum", leaf.get("exclusiveMinimum"))
        high = leaf.get("maximum", leaf.get("exclusiveMaximum"))
        whole = kind == "integer"
        near = [low, high, low - 1, high + 1] + ([] if whole else [low + 1e-9, high - 1e-9])
        inside = (
            st.integers(low, min(high, low + 40))
            if whole
            else st.floats(low, min(high, low + 2), allow_subnormal=False)
        )
        return st.one_of(inside, inside, st.sampled_from([*near, *other]))
    listed = leaf.get("enum", [leaf["const"]] if "const" in leaf else [])
    return st.sampled_from([*listed, *listed, *other])


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a tiny study with one to four odd settings, and sometimes one in its space."""
    model = draw(st.sampled_from(list(BASES)))
    document = copy.deepcopy(BASE | {"space": copy.deepcopy(SPACE)} | BASES[model])
    criterion = draw(st.sampled_from([name for name in CRITERIA.names() if name != "from_bundle"]))
    initializer = draw(st.sampled_from(["ldi", "variance_scaling", "gaussian"]))
    document["pruning"] = {"criterion": {"name": criterion}, "initializer": {"name": initializer}}
    if "rounds" in options_schema(CRITERIA.get(criterion)).model_fields:
        document["pruning"]["criterion"]["rounds"] = 3
    chosen = {"model": model, "pruning.criterion": criterion, "pruning.initializer": initializer}
    own = [
        (f"{place}.{key}", leaf)
        for place, name, key, leaf in OPTION_LEAVES
        if chosen.get(place) == name and key != "checkpoint"
    ]
    for _ in range(draw(st.integers(1, 4))):
        drawn_from = draw(st.sampled_from([STUDY_LEAVES, own or STUDY_LEAVES]))
        key, leaf = draw(st.sampled_from(drawn_from))
        found = draw(values(key, leaf))
        sampled = key.partition(".")[0] in ("model", "pruning", "training")
        if sampled and draw(st.integers(0, 4)) == 0:
            listed = [found, draw(values(key, leaf))]
            document["space"]["parameters"][key] = listed
        elif isinstance(lookup(document, key.rpartition(".")[0] or "data"), dict | None):
            assign(document, key, found)
    return document


def refusal(path: Path) -> InputError | None:
    """Return why `check` refuses a study, or None."""
    try:
        sculpt.check(path)
    except InputError as error:
        return error
    return None


def check_one(document: dict[str, Any]) -> str:
    """Check a study, and run it if it passes; return what became of it."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", SculptWarning)
        path = Path(folder, "odd.yaml")
        document = document | {"study": "odd", "storage": f"{folder}/odd.db"}
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        refused = refusal(path)
        try:
            results = sculpt.run(path)
        except InputError as error:
            said = str(error)
            # Which precisions there are is the device's, of which only `run` knows.
            assert str(refused) == said or "tf32" in said, f"check says: {refused}; run: {said}"
            assert list(Path(folder).iterdir()) == [path], "nothing is written"
            return "refused"
        except SculptError as error:
            said = str(error)
            assert any(f": {name}: " in said for name in OUTCOMES), said
            return "outcome"
        assert refused is None, f"run passed, and check says: {refused}"
        failed = results.trials.get("error")
        for problem in [] if failed is None else failed.dropna():
            assert str(problem).startswith(OUTCOMES) or "must" in str(problem), problem
        return "ran"


COMMON = {"deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}


@settings(max_examples=40, derandomize=True, **COMMON)
@given(studies())
def test_a_study_is_read_or_refused(document):
    """With every fault on a line of its own, and never by another error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "odd.yaml")
        path.write_text(yaml.safe_dump(document))
        try:
            load_study(path)
        except InputError as error:
            lines = str(error).splitlines()
            assert all(line.startswith(f"{path}: ") for line in lines), lines


@settings(max_examples=2, derandomize=True, **COMMON)
@given(studies())
def test_what_passes_runs(document: dict[str, Any]):
    check_one(document)


@pytest.mark.slow
@settings(max_examples=30, **COMMON)
@given(studies())
def test_whatever_passes_runs(document: dict[str, Any]):
    check_one(document)
