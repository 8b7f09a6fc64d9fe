"""Registries of the functions and classes that a study names.

Each registry owns one folder of the package (or one module). The first lookup imports every module
in that folder, and each module registers its definitions by a decorator, so an addition is a file.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, create_model

from sculpt.errors import ConfigError, InputError, SculptError, UnknownNameError

T = TypeVar("T")

IMPORT = "import"
"""The entry of a registry that stands for a callable of the user's own, by its option `factory`."""

FROM_BUNDLE = "from_bundle"
"""The criterion that takes its mask, and the initializer that takes its weights, from a file."""

REFERENCE = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""How a callable is named: `module:name`."""

_asked_for: set[str] = set()
"""Modules that somebody has asked for by `load_plugins`."""


class Registry:
    """A mapping from names to the objects registered in one folder (and in plug-ins).

    Args:
        kind: Name of an entry in messages, for example `"criterion"`.
        package: Dotted name of the package whose modules register entries.
    """

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self._package = package
        self._entries: dict[str, Any] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Make a decorator that registers its argument under `name`.

        Raises:
            ConfigError: another definition has this name.
        """

        def file_entry(entry: T) -> T:
            # Reloading a module registers an equal definition again; only two different
            # definitions clash.
            taken = self._entries.get(name)
            if taken is not None and _origin(taken) != _origin(entry):
                raise ConfigError(
                    f"a {self.kind} name must be unique, but {name!r} is registered by both "
                    f"{_origin(taken)} and {_origin(entry)}; rename one of them"
                )
            self._entries[name] = entry
            return entry

        return file_entry

    def get(self, name: str) -> Any:
        """Return the entry called `name`.

        Raises:
            UnknownNameError: there is none; the message lists the known names.
        """
        self._load()
        if name not in self._entries:
            own = f", or {IMPORT} (docs/how-to/own-network.md)" if IMPORT in self._entries else ""
            raise UnknownNameError(
                f"{self.kind} must be one of {', '.join(self.names())}{own}, but got {name!r}; one "
                "of a plug-in needs its module named: --plugins MODULE (in a study file: plugins)"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """List all registered names, sorted; without `import`, which names nothing by itself."""
        self._load()
        return sorted(self._entries.keys() - {IMPORT})

    def entries(self) -> list[Any]:
        """List all entries, in the order of registration."""
        self._load()
        return list(self._entries.values())

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first, because a module may look up another one's entries
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            # Or the next lookup would miss names.
            self._loaded = False
            raise


def options_of(entry: Any) -> dict[str, inspect.Parameter]:
    """Return the options of a registered function or class: its keyword-only parameters."""
    parameters = inspect.signature(entry, eval_str=True).parameters.items()
    return {name: option for name, option in parameters if option.kind is option.KEYWORD_ONLY}


def schema_of(entry: Any, options: Mapping[str, Any]) -> type[BaseModel]:
    """Make a schema of the options of a registered function or class, given what is given.

    They are those of `options_schema`. Where `options` has more (`**options`), the entry is an
    `import`, and they are the keyword arguments of the callable that `factory` names.

    Raises:
        ConfigError: see `options_schema` and `imported`.
    """
    kinds = {option.kind for option in inspect.signature(entry).parameters.values()}
    reference = options.get("factory")
    if inspect.Parameter.VAR_KEYWORD not in kinds or not _is_reference(reference):
        return options_schema(entry)
    return _imported_schema(imported(str(reference)))


@cache
def _imported_schema(factory: Callable[..., Any]) -> type[BaseModel]:
    """Make a schema of the keyword arguments of somebody's callable.

    What stands in annotations was not written for study files: what cannot be checked may be
    anything. Nothing is required that the data may give, see `keywords_of`.
    """
    keywords, takes_any = keywords_of(factory)
    fields: dict[str, Any] = {"factory": (str, ...)}
    for name, option in keywords.items():
        if name.startswith("_"):
            continue  # Pydantic has no such fields; it keeps its default
        needed = option.default is option.empty and name not in FACTS
        fields[name] = (_checkable(option.annotation), ... if needed else option.default)
    config = ConfigDict(
        extra="allow" if takes_any else "forbid", strict=True, frozen=True, protected_namespaces=()
    )
    return create_model(f"options of {factory.__name__}", __config__=config, **fields)


FACTS = ("classes", "num_classes", "outputs", "input_shape")
"""Keyword arguments of a network's factory that the data gives, unless the study does."""


def keywords_of(factory: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the keyword arguments of a callable, and whether it takes any others, too.

    Raises:
        ConfigError: it has no signature, or takes an argument that has no name.
    """
    try:
        found = inspect.signature(factory, eval_str=True).parameters.values()
    except (NameError, TypeError, ValueError):
        try:
            found = inspect.signature(factory).parameters.values()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"a factory must have a signature to be given options, but {factory!r:.80} has "
                "none; wrap it in a function"
            ) from error
    if nameless := [o for o in found if o.kind is o.POSITIONAL_ONLY and o.default is o.empty]:
        raise ConfigError(
            f"a factory must take its arguments by keyword, but {nameless[0].name} of "
            f"{_origin(factory)} has none; wrap it in a function"
        )
    named = {o.name: o for o in found if o.kind in (o.KEYWORD_ONLY, o.POSITIONAL_OR_KEYWORD)}
    return named, any(option.kind is option.VAR_KEYWORD for option in found)


NOT_IN_YAML = (tuple, set, frozenset, bytes, PurePath, Enum)
"""Types that no value of a study file has."""


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all those in it."""
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _checkable(annotation: Any) -> Any:
    """Return an annotation that values of YAML can be checked by; else anything may be given."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return Any
    if any(isinstance(kind, type) and issubclass(kind, NOT_IN_YAML) for kind in _kinds(annotation)):
        return Any
    try:
        TypeAdapter(annotation)
    except (NameError, TypeError, ValueError, PydanticUserError):
        return Any
    return annotation


@cache
def options_schema(entry: Any) -> type[BaseModel]:
    """Make a schema of the options of a registered function or class.

    An option's annotation says what it may be, and with Pydantic's `Field` within which bounds:
    `rounds: Annotated[int, Field(ge=1, le=1000)] = 100`. Numbers must be finite in any case.

    Raises:
        ConfigError: an annotation is no type that a study file can be checked against.
    """
    try:
        fields: dict[str, Any] = {
            name: (
                Any if option.annotation is option.empty else option.annotation,
                ... if option.default is option.empty else option.default,
            )
            for name, option in options_of(entry).items()
        }
        config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
        return create_model(f"options of {entry.__name__}", __config__=config, **fields)
    except (NameError, TypeError, ValueError, PydanticUserError) as error:
        raise ConfigError(
            "an option must have a type that a study file can hold (a number, text, a list or a "
            f"mapping of them), but one of {_origin(entry)} has not ({error}); change its "
            "annotation"
        ) from error


def check_options(name: str, entry: Any, given: Collection[str], what: str = "options") -> None:
    """Refuse options that a registered function does not have, or the lack of one that it needs.

    Raises:
        InputError: an option is unknown or missing; the message lists those there are.
    """
    options = options_of(entry)
    known = ", ".join(options) or "it has none"
    if unknown := [key for key in given if key not in options]:
        raise InputError(
            f"{what} must be options of {name} ({known}), but got {unknown[0]!r}; take it out, or "
            "choose another entry that has it"
        )
    if missing := [k for k, o in options.items() if o.default is o.empty and k not in given]:
        raise InputError(
            f"{what} of {name} ({known}) must be given without a default, but "
            f"{missing[0]!r} is not; give it"
        )


def imported(reference: str) -> Callable[..., Any]:
    """Return the callable that `module:name` names, of a module that `load_plugins` has imported.

    Nothing is imported here, because a reference may have been read from anybody's file. For the
    same reason it is not enough that a module happens to be imported (`os` always is), and what a
    module has from elsewhere does not count: the callable must be defined in its package.

    Raises:
        ConfigError: nobody has asked for the module, or it has no such callable.
    """
    if not _is_reference(reference):
        raise ConfigError(f"a callable must be named module:function, but got {reference!r:.80}")
    name, _, attribute = reference.partition(":")
    module = sys.modules.get(name)
    if name not in _asked_for or module is None:
        raise ConfigError(
            f"a callable of one's own must be of a module that is imported, but {name!r} of "
            f"{reference!r} is not; if you trust it, give --plugins {name} (in Python, call "
            f"sculpt.registry.load_plugins([{name!r}]) first)"
        )
    found = getattr(module, attribute, None)
    package = str(getattr(found, "__module__", None)).partition(".")[0]
    if not callable(found) or package != name.partition(".")[0]:
        what = "has none" if found is None else "has it from elsewhere, or it cannot be called"
        raise ConfigError(
            f"{reference!r} must name a function or class that is defined in {name!r}, but that "
            f"{what}; define it there"
        )
    made: Callable[..., Any] = found
    return made


def call_imported(reference: str, arguments: Mapping[str, Any]) -> Any:
    """Call what `module:name` names.

    Raises:
        InputError: it raises anything, whose text is told.
        ConfigError: see `imported`.
    """
    factory = imported(reference)
    try:
        return factory(**arguments)
    except SculptError:
        raise
    except Exception as error:  # somebody's code raises anything
        given = ", ".join(f"{name}={value!r:.80}" for name, value in arguments.items())
        raise InputError(
            f"{reference} must take its options, but with ({given}) it raises "
            f"{type(error).__name__}: {error!s:.300}; change the options, or mend it"
        ) from error


def _is_reference(reference: Any) -> bool:
    return isinstance(reference, str) and re.fullmatch(REFERENCE, reference) is not None


def _origin(entry: Any) -> str:
    entry = inspect.unwrap(entry)
    return f"{entry.__module__}.{entry.__qualname__}"


def load_plugins(modules: Iterable[str], trusted: Collection[str] | None = None) -> None:
    """Import modules from outside the package, which register their definitions.

    They run as any program does. So they are named by whoever runs a study file or a command, and
    never by what is read: a storage, an archive, an exported network.

    Args:
        modules: Their names.
        trusted: Those whose callables may be called from now on, see `imported`: by default all.
            Another process is given `asked_for` of the one that was told by a person.

    Raises:
        ConfigError: a module cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
            if trusted is None or name in trusted:
                _asked_for.add(name)
        except SculptError:
            raise  # a name that is taken
        except Exception as error:
            # A name may be none ('' and '.x'), and a module may raise anything.
            reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"plugins must be importable modules, but {name!r} is not ({reason}); "
                "install it, or start sculpt from the folder that holds it with "
                "PYTHONPATH=. in front of the command"
            ) from error


def asked_for(modules: Iterable[str]) -> list[str]:
    """Return those of these modules that somebody has asked for in this process."""
    return [name for name in modules if name in _asked_for]


def refuse_absent_plugins(modules: Iterable[str]) -> None:
    """Refuse to work with plug-ins that nobody has imported here.

    Raises:
        ConfigError: one of them is not imported.
    """
    if absent := [name for name in modules if name not in sys.modules]:
        named = " ".join(f"--plugins {name}" for name in absent)
        raise ConfigError(
            f"a study with plug-ins must have them imported to be worked on, but here "
            f"{', '.join(map(repr, absent))} is not; if you trust it, give {named} (in Python, "
            "import it first)"
        )


CRITERIA = Registry("criterion", "sculpt.pruning.criteria")
DATASETS = Registry("data set", "sculpt.data")
FORMATS = Registry("format", "sculpt.export.formats")
INITIALIZERS = Registry("initializer", "sculpt.initializers")
MODELS = Registry("model family", "sculpt.models")
OBJECTIVES = Registry("objective", "sculpt.quantities")
QUANTITIES = Registry("quantity", "sculpt.quantities")
