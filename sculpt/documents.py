"""YAML documents as nested dictionaries: reading them, and addressing them by dotted keys."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sculpt.errors import ConfigError

Document = dict[str, Any]
"""A mapping of YAML or JSON: keys to scalars, lists and mappings, not checked by a schema."""


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with two traps closed: repeated keys, and 1e-4 read as text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    merge = "tag:yaml.org,2002:merge"  # `<<: *anchor`, which is resolved below
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != merge]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"a key must be given once, but got {key!r} again", node.start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def parse_value(text: str) -> Any:
    """Read one YAML value, as in `--set key=value`.

    Raises:
        ConfigError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise ConfigError(f"a value must be YAML, but got {text!r} ({error})") from error


def read_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else.
    """
    try:
        document = parse_value(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: must be a readable YAML file, but is not ({reason}); check the path"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: must be YAML, but is not: {error.__cause__}") from error
    if not isinstance(document, dict):
        raise ConfigError(
            f"{path}: must hold a mapping of keys to values, but holds {type(document).__name__}"
        )
    return document


def lookup(document: Mapping[str, object], key: str) -> Any:
    """Return the value at a dotted key, or None if it is missing."""
    value: Any = document
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def assign(document: Document, key: str, value: Any) -> None:
    """Set the value at a dotted key, creating missing mappings.

    A whole number addresses an element of a list (`model.blocks.1`). The list is copied, because
    other documents may share it.

    Raises:
        ConfigError: a part of the key holds neither a mapping nor a list, or a list has no such
            element.
    """
    *parents, last = key.split(".")
    section: Any = document
    for depth, part in enumerate(parents):
        place = _place(section, part, key, parents[:depth])
        if isinstance(section, dict):
            section.setdefault(part, {})
        if isinstance(section[place], list):
            section[place] = copy.deepcopy(section[place])
        section = section[place]
        if not isinstance(section, dict | list):
            raise ConfigError(
                f"{key}: every part but the last must be a section or a list, but "
                f"{'.'.join(parents[: depth + 1])} is {section!r}"
            )
    section[_place(section, last, key, parents)] = value


def _place(section: Any, part: str, key: str, parents: list[str]) -> str | int:
    """Resolve a part of a key in its section: to a key, or the number of an element."""
    if isinstance(section, dict):
        return part
    if not part.isdecimal() or int(part) >= len(section):
        raise ConfigError(
            f"{key}: an element of {'.'.join(parents)} must be addressed by a whole number below "
            f"{len(section)}, its length, but got {part!r}"
        )
    return int(part)


def flatten(document: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return a document's values by dotted key; a list is one value."""
    flat: dict[str, object] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
