"""Dataclasses as JSON and back: an object with the fields as keys.

An optional field has None as its default, and is left out while it is None.
"""

import json
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sculpt.errors import StorageError

T = TypeVar("T")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
"""Cache by dataclass: building one takes longer than using it."""


def to_json(value: Any) -> Any:
    """Convert a dataclass, and those nested in it, for `json.dumps`."""
    if is_dataclass(value):
        found = [(field, getattr(value, field.name)) for field in fields(value)]
        return {
            field.name: to_json(part)
            for field, part in found
            if part is not None or field.default is MISSING
        }
    if isinstance(value, dict):
        return {key: to_json(part) for key, part in value.items()}
    return [to_json(part) for part in value] if isinstance(value, list | tuple) else value


def from_json(kind: type[T], document: Any, what: str, mend: str = "") -> T:
    """Parse JSON as a dataclass, every field checked against its type.

    Args:
        kind: The dataclass.
        document: Bytes, or the parsed JSON.
        what: Its name in messages.
        mend: Advice in messages for a damaged document, beginning with `; `.

    Raises:
        StorageError: it is not JSON, a key is missing or unknown, or a value has another type.
    """
    adapter = _ADAPTERS.get(kind) or _ADAPTERS.setdefault(kind, TypeAdapter(kind))
    text = document if isinstance(document, bytes) else json.dumps(document)
    try:
        found: T = adapter.validate_json(text, strict=True, extra="forbid")
        return found
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == "json_invalid":
            raise StorageError(f"{what} must be JSON, but is not ({fault['msg']}){mend}") from error
        key = ".".join(map(str, fault["loc"]))
        raise StorageError(
            f"{what} must be whole, but its {key:.80} is not as written ({fault['msg']:.200}){mend}"
        ) from error
