"""YAML documents as nested dictionaries: reading them, and addressing them by dotted keys."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sculpt.errors import ConfigError
from sculpt.files import check_file

Document = dict[str, Any]
"""A mapping of YAML or JSON: keys to scalars, lists and mappings, not checked by a schema."""

MOST_BYTES = 2**20
"""Largest YAML file; studies have a few thousand bytes, and about 100,000 are parsed a second."""
MOST_LEVELS, MOST_VALUES = 50, 100_000
"""Levels and values of a document; what an alias (`*name`) repeats counts each time."""


class _Loader(yaml.SafeLoader):
    """Plain values as people mean them: YAML 1.2 in decimal, where PyYAML knows YAML 1.1.

    That reads 1:30 as 90, 010 as 8, `no` as false, 2024-01-31 as a date, and 1e-4 as text. Here
    true and false are switches, decimal numbers are numbers (`1_000` in groups of three digits,
    too), all else is text, and a number that begins with 0 is refused.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}
        """Values and levels of each node that was read."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Read a node; refuse one that is too deep or too large, or holds itself."""
        event = self.peek_event()
        mark = event.start_mark
        self._level += 1
        _check(self._level <= MOST_LEVELS, f"have at most {MOST_LEVELS} levels", mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(event, yaml.AliasEvent):
            _check(node in self._extents, "not hold itself", mark)
        elif node is not None:
            parts = [] if isinstance(node, yaml.ScalarNode) else _parts(node.value)
            extents = [self._extents[part] for part in parts]
            values = 1 + sum(extent[0] for extent in extents)
            levels = 1 + max((extent[1] for extent in extents), default=0)
            _check(values <= MOST_VALUES, f"have at most {MOST_VALUES} values", mark)
            _check(levels <= MOST_LEVELS, f"have at most {MOST_LEVELS} levels", mark)
            self._extents[node] = values, levels
        return node


def _parts(value: list[Any]) -> list[yaml.Node]:
    """Return the nodes of a list, or the keys and values of a mapping."""
    return [node for part in value for node in (part if isinstance(part, tuple) else (part,))]


def _check(kept: bool, rule: str, mark: yaml.Mark) -> None:
    if not kept:
        raise yaml.MarkedYAMLError(problem=f"a document must {rule}", problem_mark=mark)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = set()
    for one, _ in node.value:
        if one.tag == _TAG + "merge":  # `<<: *anchor`, which is resolved below
            continue
        key = loader.construct_object(one, deep=True)
        if not isinstance(key, str):
            _refuse(f"a key must be text, but got {key!r}; put it in quotes", one)
        if key in keys:
            _refuse(f"a key must be given once, but got {key!r} again", one)
        keys.add(key)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    if not is_writable(text):
        _refuse(f"text must be Unicode without NUL, but got {text!r}", node)
    return text


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    if text.endswith((".inf", ".nan")):
        return float(text.replace(".", ""))
    return float(text) if "." in text or "e" in text else int(text)


def _ambiguous(_: _Loader, node: yaml.ScalarNode) -> None:
    _refuse(
        f"a number must not begin with 0 (programs read it as octal or as decimal), but got "
        f"{node.value}; leave out the 0, or put it in quotes if it is text",
        node,
    )


def _refuse(problem: str, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


# In place of those of YAML 1.1, which are inherited.
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}
_TAG = "tag:yaml.org,2002:"
_DIGITS = r"(?:[0-9]+|[0-9]{1,3}(?:_[0-9]{3})+)"
for _kind, _pattern, _constructor in (
    ("merge", "<<", None),
    ("null", "~|null|Null|NULL|", yaml.SafeLoader.construct_yaml_null),
    ("bool", "true|True|TRUE|false|False|FALSE", yaml.SafeLoader.construct_yaml_bool),
    ("number of two meanings", "[-+]?0[0-9_]+", _ambiguous),
    ("int", rf"[-+]?{_DIGITS}", _number),
    (
        "float",
        rf"[-+]?(?:{_DIGITS}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        _number,
    ),
    ("str", None, _text),
    ("seq", None, yaml.SafeLoader.construct_yaml_seq),
    ("map", None, _mapping),
    (None, None, yaml.SafeLoader.construct_undefined),
):
    _tag = _kind and _TAG + _kind
    if _pattern is not None:
        _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), None)
    if _constructor is not None:
        _Loader.add_constructor(_tag, _constructor)


def parse_value(text: str) -> Any:
    """Read one YAML value, as in `--set key=value`.

    Raises:
        ConfigError: the text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of 5,000 digits
        raise ConfigError(f"a value must be YAML, but got {text!r:.200} ({error})") from error


def read_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else.
    """
    try:
        check_file(path, MOST_BYTES)
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


def is_writable(text: str) -> bool:
    """Tell whether file names and databases take a text: not NUL, nor half of a character."""
    return not re.search("[\0\ud800-\udfff]", text)


def lookup(document: Mapping[str, object], key: str) -> Any:
    """Return the value at a dotted key, or None if it is missing."""
    value: Any = document
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def assign(document: Document, key: str, value: Any) -> None:
    """Set the value at a dotted key, creating missing mappings.

    A whole number addresses an element of a list (`model.blocks.1`). What lies on the way is
    copied: other documents may share it, and other keys of this one (an alias in YAML).

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
        if isinstance(section[place], dict | list):
            section[place] = copy.copy(section[place])
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
