"""Reading a study file, with all of its faults reported at once.

A fault is one line, `file: key: rule, but got value`. Options of registered functions and classes
(a data set's `root`, a criterion's `targets`) are checked against their keyword-only parameters,
so they are declared in one place.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sculpt.config import (
    Choice,
    Data,
    Overrides,
    Params,
    Pruning,
    Range,
    Space,
    Study,
    label,
    named_plugins,
    parameter_path,
    sample_budgets,
)
from sculpt.config.arms import with_arm
from sculpt.documents import Document, assign, is_writable, lookup, read_yaml
from sculpt.errors import ConfigError, UnknownNameError
from sculpt.quantities import proxies
from sculpt.record import path_fault
from sculpt.registry import (
    CRITERIA,
    DATASETS,
    IMPORT,
    INITIALIZERS,
    MODELS,
    OBJECTIVES,
    REFERENCE,
    Registry,
    imported,
    load_plugins,
    options_of,
    schema_of,
)

OF_OWN_LOSSES = ("gt", "jacobian_1", "jacobian_2")
SCORED = dict.fromkeys(("bce", "mse"), ("uniform", *OF_OWN_LOSSES))
"""Targets of criteria by the study's loss; without labels a loss of one's own has no meaning."""

SEARCHABLE = "must be an option of the model, or a key under model, pruning, training or budget"

CHOICES: dict[str, Registry] = {
    "data": DATASETS,
    "model": MODELS,
    "pruning.initializer": INITIALIZERS,
    "pruning.redraw": INITIALIZERS,
    "pruning.criterion": CRITERIA,
    "pruning.data": DATASETS,
}


def load_study(path: str | Path, overrides: Overrides | None = None) -> Study:
    """Read and check a study file.

    Args:
        path: A YAML file. Its `space` may be a mapping or the path of another YAML file, relative
            to this one.
        overrides: Dotted keys to values, set before checking, for example {"search.trials": 4}.

    Raises:
        ConfigError: the message lists every fault as file: key: rule, but got value.
    """
    path = Path(path)
    document = read_yaml(path)
    _read_space(document, path.parent)
    for key, value in (overrides or {}).items():
        assign(document, key, value)
        _read_space(document, path.parent)
    load_plugins_of(document)
    document = sample_budgets(document)
    faults = document_faults(document) or space_faults(document) or opponent_faults(document)
    faults = faults or Study.model_validate(document).lasting_contradictions()
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return Study.model_validate(document)


def _read_space(document: Document, folder: Path) -> None:
    """Read a space that is given as the path of a file of its own."""
    if isinstance(space := document.get("space"), str):
        document["space"] = read_yaml(folder / space)


def load_plugins_of(document: Document) -> None:
    """Import the plug-ins that a study file of the user's own names; see `load_plugins`.

    Among them are the modules of its callables, see `named_plugins`.
    """
    load_plugins(name for name in named_plugins(document) if isinstance(name, str))


def document_faults(document: Document) -> list[str]:
    """List all faults of a study document, one line each."""
    if faults := _text_faults(document):
        return faults
    faults = _validation_faults(Study, document)
    for key, registry in CHOICES.items():
        choice = lookup(document, key)
        if isinstance(choice, dict) and isinstance(choice.get("name"), str):
            faults += [f"{key}.{fault}" for fault in _choice_faults(registry, choice)]
    faults += _callable_faults(document) + _scoring_faults(document)
    return faults + _objective_faults(document) + _figure_faults(document)


def space_faults(document: Document) -> list[str]:
    """List the faults that values of the space would cause in a sound study.

    Each value is tried by itself or, for a parameter with conditions, with each combination of
    values under which it is sampled.
    """
    study = Study.model_validate(document)
    space = study.space
    faults: dict[str, list[str]] = {}
    for key in space.parameters:
        if not _is_searchable(key):
            faults[key] = [SEARCHABLE]
            continue
        related = _related(space, key)
        if any(faults.get(other) for other in related):
            continue  # its own faults would only repeat theirs
        known: dict[tuple[str, str], str] = {}
        for point in space.combinations(related | {key: None}, lambda key: _tried(space, key)):
            if key in point:
                beside = [f"{other} {label(point[other])}" for other in related if other in point]
                text = f"{point[key]!r:.100} " + (f"with {', '.join(beside)} " if beside else "")
                for fault in _point_faults(study, point):
                    known.setdefault((repr(point[key]), fault), f"{text}does not fit: {fault}")
        faults[key] = list(known.values())
    return [f"space.parameters.{key}: {fault}" for key, found in faults.items() for fault in found]


def opponent_faults(document: Document) -> list[str]:
    """List the faults of the opponents of a sound study, each with its parameters in place."""
    study = Study.model_validate(document)
    faults = []
    for place, opponent in enumerate(study.opponents):
        elsewhere = [key for key in opponent.options if not _is_searchable(key)]
        found = [f"{key}: {SEARCHABLE}" for key in elsewhere]
        found = found or _point_faults(study, opponent.options)
        if not found:
            armed = with_arm(study.with_parameters(opponent.options), opponent.name)
            found = document_faults(armed.model_dump()) or [*armed.contradictions().values()]
        faults += [f"opponents.{place} ({opponent.label}): {fault}" for fault in found]
    return faults


def _is_searchable(key: str) -> bool:
    return parameter_path(key).split(".")[0] in ("model", "pruning", "training", "budget")


def _related(space: Space, key: str) -> dict[str, None]:
    """Find the parameters that one depends on, in the order of the space.

    They are those of its conditions, and the whole choice that it is an option of.
    """
    found, pending = {key}, [key]
    while pending:
        one = pending.pop()
        within = parameter_path(one)
        wholes = {k for k in space.parameters if within.startswith(f"{parameter_path(k)}.")}
        pending += (space.wanted(one).keys() | wholes) - found
        found.update(pending)
    return {one: None for one in space.parameters if one in found - {key}}


def _tried(space: Space, key: str) -> list[Any]:
    """Choose the values of a parameter to try: all listed ones, or some of a range."""
    dimension = space.parameters[key]
    if not isinstance(dimension, Range):
        return list(space.values(key).values())
    named = [value for child in space.parameters for value in space.wanted(child).get(key, [])]
    return list(dict.fromkeys([dimension.low, dimension.high, *named]))


def _point_faults(study: Study, point: Params) -> list[str]:
    try:
        return document_faults(study.document_with(point))
    except ConfigError as error:
        return [str(error)]


def _text_faults(value: Any, key: str = "") -> list[str]:
    """List the texts that no file name and no database takes."""
    if isinstance(value, str) and not is_writable(value):
        return [f"{key}: must be Unicode without NUL, but got {value!r:.200}"]
    parts = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(parts, dict):
        return []
    prefix = f"{key}." if key else ""
    return [
        fault for name, part in parts.items() for fault in _text_faults(part, f"{prefix}{name}")
    ]


def _objective_faults(document: Document) -> list[str]:
    """List the faults of the objectives and proxy of a search."""
    known = {name: OBJECTIVES.get(name) for name in OBJECTIVES.names()}
    reported = [name for name, kind in known.items() if kind.report_only]
    early = [name for name, kind in known.items() if kind.before_training]
    allowed = {
        "search.objectives": [name for name in known if name not in reported],
        "search.early_stopping.objectives": ["val_error", *early],
    }
    faults = []
    for key, names in allowed.items():
        given = lookup(document, key)
        for name in given if isinstance(given, list) else []:
            if isinstance(name, str) and name not in names:
                rule = f"be among {', '.join(names)}"
                if name in reported:
                    rule = "not choose by what is only reported"
                faults.append(f"{key}: must {rule}, but got {name!r}")
    proxy, names = lookup(document, "search.early_stopping.proxy"), list(proxies())
    if isinstance(proxy, str) and proxy not in names:
        *first, last = map(repr, names)
        rule = f"be {', '.join(first)} or {last}"
        faults.append(f"search.early_stopping.proxy: must {rule}, but got {proxy!r}")
    return faults


def _figure_faults(document: Document) -> list[str]:
    figures = lookup(document, "published.figures")
    return [
        f"published.figures: must be paths in a seed's record, but got {figure!r}: {fault}"
        for figure in (figures if isinstance(figures, list) else [])
        if isinstance(figure, str) and (fault := path_fault(figure))
    ]


def _choice_faults(registry: Registry, choice: Document) -> list[str]:
    try:
        entry = registry.get(choice["name"])
    except UnknownNameError as error:
        return [f"name: {str(error).removeprefix(registry.kind + ' ')}"]
    declared = Data.model_fields if registry is DATASETS else Choice.model_fields
    options = {key: value for key, value in choice.items() if key not in declared}
    try:
        schema = schema_of(entry, options)
    except ConfigError as error:
        if choice["name"] != IMPORT:
            raise
        return [f"factory: {error}"]
    return _validation_faults(schema, options)


def _callable_faults(document: Document) -> list[str]:
    """List the own losses and metrics that are none."""
    faults = []
    for key in ("task.loss", "task.metric"):
        name = lookup(document, key)
        if isinstance(name, str) and re.fullmatch(REFERENCE, name):
            try:
                imported(name)
            except ConfigError as error:
                faults.append(f"{key}: {error}")
    return faults


def _scoring_faults(document: Document) -> list[str]:
    """List the targets of a criterion that have no meaning under the study's loss."""
    loss, name = lookup(document, "task.loss"), lookup(document, "pruning.criterion.name")
    if not isinstance(loss, str) or loss == "cross_entropy":
        return []
    name = name if isinstance(name, str) else Pruning().criterion.name
    if name not in CRITERIA.names():
        return []
    options = options_of(CRITERIA.get(name))
    faults = []
    for key, sound in {"targets": SCORED.get(loss, OF_OWN_LOSSES), "temperature": (1, 1.0)}.items():
        if key not in options:
            continue
        given = lookup(document, f"pruning.criterion.{key}")
        given = options[key].default if given is None else given
        if given not in sound:
            faults.append(
                f"pruning.criterion.{key}: must be {' or '.join(map(str, sound[:4]))} where "
                f"task.loss is {loss}, because others are of classes, but is {given!r} of {name}; "
                "set it, or choose a criterion without it"
            )
    return faults


def _validation_faults(schema: type[BaseModel], document: Any) -> list[str]:
    try:
        schema.model_validate(document)
    except ValidationError as error:
        found = [(_key(fault), fault) for fault in error.errors(include_url=False)]
        # A value that fits no branch of a union is reported once for each branch. For a list that
        # could have been a number, only the fault inside the list counts.
        rules: dict[tuple[str, str], list[str]] = {}
        for key, fault in found:
            nearer = any(other.startswith(f"{key}.") for other, _ in found)
            if not (nearer and fault["type"].endswith("_type")):
                rule, given = _rule(fault, schema)
                rules.setdefault((key, given), []).append(rule)
        return [
            f"{key}: must {' or '.join(dict.fromkeys(alternatives))}, but {given}"
            for (key, given), alternatives in rules.items()
        ]
    return []


def _key(fault: Any) -> str:
    return ".".join(str(part) for part in fault["loc"] if not _is_branch(part))


def _rule(fault: Any, schema: type[BaseModel]) -> tuple[str, str]:
    """Phrase the rule that a value breaks, and the given value."""
    if fault["type"] == "extra_forbidden":
        return f"be one of the keys known here ({_known_keys(schema, fault['loc'][:-1])})", (
            "this key is not"
        )
    if fault["type"] == "missing":
        return "be given", "is missing"
    if fault["type"].startswith("byte_size"):
        return "be a number of bytes, or a text such as '2GiB'", f"got {fault['input']!r}"
    # Without Pydantic's names of its checks, which mean nothing to the user.
    rule = re.sub(r"^(Value error, |\w+ should )", "", fault["msg"])
    rule = re.sub(r" after validation, not \d+$", "", rule)
    rule = re.sub(r"be a valid dictionary.*", "be a mapping of keys to values", rule)
    rule = re.sub(r"unable to parse.*", "", rule).rstrip(", ")
    rule = rule.replace("be a valid boolean", "be true or false")
    return rule, f"got {fault['input']!r:.500}"


def _is_branch(part: Any) -> bool:
    """Tell whether a part of a location names a branch of a union, not a key of the file."""
    names = ("int", "float", "bool", "str", "Sparsity", "Macs", "Range", "Choice", "Data")
    return isinstance(part, str) and (
        part in names or "[" in part or part.startswith("constrained-")
    )


def _known_keys(schema: type[BaseModel], location: tuple[Any, ...]) -> str:
    for part in location:
        field = schema.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return "see docs, Study keys"
        schema = field.annotation
    return ", ".join(schema.model_fields) or "none"
