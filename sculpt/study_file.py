"""Reading a study file: every fault of it is reported at once.

A fault is one line, `file: key: rule, but got value`. Options of registered things (a data
set's `root`, a criterion's `targets`) are checked against the keyword-only parameters of what
is registered, so they are declared in one place.
"""

import copy
import re
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from sculpt.config import Choice, Data, Section, Study, parameter_path
from sculpt.documents import assign, lookup, read_yaml
from sculpt.errors import ConfigError, UnknownNameError
from sculpt.registry import (
    CRITERIA,
    DATASETS,
    INITIALIZERS,
    MODELS,
    OBJECTIVES,
    Registry,
    load_plugins,
)

CHOICES: dict[str, Registry] = {
    "data": DATASETS,
    "model": MODELS,
    "pruning.initializer": INITIALIZERS,
    "pruning.criterion": CRITERIA,
    "pruning.data": DATASETS,
}


def load_study(path: str | Path, overrides: dict[str, Any] | None = None) -> Study:
    """Read a study file and check all of it.

    Args:
        path:
            A YAML file. Its `space` may be a mapping or the path of another YAML file,
            relative to this one.
        overrides:
            Dotted keys to values, set before checking, for example {"search.trials": 4}.

    Raises:
        ConfigError: the message lists every fault as file: key: rule, but got value.
    """
    path = Path(path)
    document = read_yaml(path)
    space = document.get("space")
    if isinstance(space, str):
        document["space"] = read_yaml(path.parent / space)
    for key, value in (overrides or {}).items():
        assign(document, key, value)
    plugins = document.get("plugins")
    if isinstance(plugins, list) and all(isinstance(name, str) for name in plugins):
        load_plugins(plugins)
    faults = document_faults(document) or space_faults(document)
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    return Study.model_validate(document)


def document_faults(document: dict[str, Any]) -> list[str]:
    """Return every fault of a study document, one line each."""
    faults = _validation_faults(Study, document)
    for key, registry in CHOICES.items():
        choice = lookup(document, key)
        if isinstance(choice, dict) and isinstance(choice.get("name"), str):
            faults += [f"{key}.{fault}" for fault in _choice_faults(registry, choice)]
    objectives = lookup(document, "search.objectives")
    for name in objectives if isinstance(objectives, list) else []:
        if isinstance(name, str) and name not in OBJECTIVES.names():
            known = ", ".join(OBJECTIVES.names())
            faults.append(f"search.objectives: must be among {known}, but got {name!r}")
    return faults


def space_faults(document: dict[str, Any]) -> list[str]:
    """Return the faults that single values of the space would bring into a sound study."""
    faults = []
    for key, dimension in document["space"]["parameters"].items():
        ranged = isinstance(dimension, dict)
        for value in [dimension["low"], dimension["high"]] if ranged else dimension:
            candidate = copy.deepcopy(document)
            path = parameter_path(key)
            if path.split(".")[0] not in ("model", "pruning", "training", "budget"):
                faults.append(
                    f"space.parameters.{key}: must be an option of the model, or a key under "
                    "model, pruning, training or budget"
                )
                break
            assign(candidate, path, value)
            faults += [
                f"space.parameters.{key}: {value!r} does not fit: {fault}"
                for fault in document_faults(candidate)
            ]
    return faults


def _choice_faults(registry: Registry, choice: dict[str, Any]) -> list[str]:
    try:
        entry = registry.get(choice["name"])
    except UnknownNameError as error:
        return [f"name: {str(error).removeprefix(registry.kind + ' ')}"]
    declared = Data.model_fields if registry is DATASETS else Choice.model_fields
    options = {key: value for key, value in choice.items() if key not in declared}
    return _validation_faults(options_schema(entry), options)


@cache
def options_schema(entry: Any) -> type[BaseModel]:
    """Return a schema of the keyword-only parameters of a registered function or class."""
    fields: dict[str, Any] = {
        name: (
            parameter.annotation,
            ... if parameter.default is Parameter.empty else parameter.default,
        )
        for name, parameter in signature(entry).parameters.items()
        if parameter.kind is Parameter.KEYWORD_ONLY
    }
    return create_model(f"options of {entry.__name__}", __base__=Section, **fields)


def _validation_faults(schema: type[BaseModel], document: Any) -> list[str]:
    try:
        schema.model_validate(document)
    except ValidationError as error:
        # A value that fits no branch of a union is reported once for each branch.
        rules: dict[tuple[str, str], list[str]] = {}
        for fault in error.errors(include_url=False):
            key = ".".join(str(part) for part in fault["loc"] if not _is_branch(part))
            rule, given = _rule(fault, schema)
            rules.setdefault((key, given), []).append(rule)
        return [
            f"{key}: must {' or '.join(dict.fromkeys(alternatives))}, but {given}"
            for (key, given), alternatives in rules.items()
        ]
    return []


def _rule(fault: Any, schema: type[BaseModel]) -> tuple[str, str]:
    """Return what a value must do, and what was given instead."""
    if fault["type"] == "extra_forbidden":
        return f"be one of the keys known here ({_known_keys(schema, fault['loc'][:-1])})", (
            "this key is not"
        )
    if fault["type"] == "missing":
        return "be given", "is missing"
    rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input should ")
    # Pydantic's names for the schema's classes mean nothing to who wrote the file.
    rule = re.sub(r"dictionary or (an )?(instance|object).*", "mapping of keys to values", rule)
    return rule, f"got {fault['input']!r}"


def _is_branch(part: Any) -> bool:
    """Say whether a part of a location names a branch of a union, not a key of the file."""
    return isinstance(part, str) and (
        part in ("int", "float", "bool", "str")
        or "[" in part
        or part.startswith("constrained-")
        or part in ("Sparsity", "Range", "Choice", "Data")
    )


def _known_keys(schema: type[BaseModel], location: tuple[Any, ...]) -> str:
    for part in location:
        field = schema.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return "see the README"
        schema = field.annotation
    return ", ".join(schema.model_fields) or "none"
