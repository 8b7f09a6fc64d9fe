"""Pages of the reference that are made from the code: a hook of MkDocs, see `mkdocs.yml`."""

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints

from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from sculpt import registry
from sculpt.benchmark.throughput import MeasuredStudy
from sculpt.cli import COMMANDS, help_of
from sculpt.config import Study
from sculpt.config.sections import Choice, Section
from sculpt.config.training import RECIPES
from sculpt.descriptions import arguments_in, said_of
from sculpt.export.folder import FolderLatency, Verification
from sculpt.export.manifest import Manifest
from sculpt.quantities import MILESTONES, SIGNALS, TOTALS, Quantity
from sculpt.record import TrialRecord
from sculpt.results.comparison import ComparisonDocument
from sculpt.results.pareto.fronts import ParetoDocument
from sculpt.results.ranking import Ranking
from sculpt.search.sampling.feasibility import CheckedStudy

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"measured/published.png": "studies/results/paper-table6_small-figures/published.png"}
DOCUMENTS = {
    "check": CheckedStudy,
    "rank": Ranking,
    "pareto": ParetoDocument,
    "show": TrialRecord,
    "compare": ComparisonDocument,
    "export": Manifest,
    "verify": Verification,
    "latency": FolderLatency,
    "bench": MeasuredStudy,
}
"""Commands to the types of their documents; that of `run` is the one of `rank`."""
WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "entries ≥"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages, and pictures that lie elsewhere in the repository."""
    for page in (study_keys, options, quantities, json_types, commands):
        path = f"reference/{page.__name__.replace('_', '-')}.md"
        files.append(File.generated(config, path, content="\n\n".join(page())))
    for path, picture in PICTURES.items():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / picture)))
    return files


def table(columns: str, rows: Iterable[Iterable[str]]) -> str:
    """Write a table in Markdown, its columns separated by commas; nothing without rows."""
    names = columns.split(", ")
    lines = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in rows]
    written = [f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *lines]]
    return "\n".join(written) if lines else ""


def spell(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """Say in words which values a type has, and within which bounds."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Annotated, NotRequired):
        return spell(parts[0], parts[1:])
    if origin is Literal:
        text = ", ".join(f"`{part}`".replace("False", "false") for part in parts)
    elif origin in (Union, types.UnionType):
        text = " or ".join("null" if p is types.NoneType else spell(p) for p in parts)
    elif origin is list:
        text = f"list of ({spell(parts[0])})"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        text = f"mapping of ({spell(parts[0])}) to ({spell(parts[1])})"
    elif isinstance(kind, type) and issubclass(kind, Choice):
        text = "a name, with its options"
    elif isinstance(kind, type) and issubclass(kind, Section):
        text = "a section of its own"
    elif is_typeddict(kind) or is_dataclass(kind):
        text = f"[{kind.__name__}](#{kind.__name__.lower()})"
    else:
        text = WORDS.get(kind, "anything" if kind in (Any, object) else kind.__name__)
    bounds = ", ".join(limits(metadata))
    return f"{text} ({bounds})" if bounds else text


def limits(metadata: Iterable[Any]) -> Iterator[str]:
    """Say the bounds in the metadata of an annotation."""
    for entry in metadata:
        if isinstance(entry, FieldInfo):
            yield from limits(entry.metadata)
        for name, sign in () if isinstance(entry, FieldInfo) else SIGNS.items():
            if (value := getattr(entry, name, None)) is not None:
                yield f"{sign} {value:,}" if isinstance(value, int) else f"{sign} {value:g}"


def schema_rows(schema: type[BaseModel], said: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield key, values, default and meaning of each field of a schema."""
    for name, field in schema.model_fields.items():
        default = field.get_default()
        shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        if field.is_required() or default is None:
            shown = "**required**" if field.is_required() else "none"
        elif isinstance(default, BaseModel):
            shown = f"`{default.label}`" if isinstance(default, Choice) else "its defaults"
        yield [f"`{name}`", spell(field.annotation, field.metadata), shown, said.get(name, "")]


def sections_in(kind: Any) -> Iterator[type[BaseModel]]:
    """Find the sections of a study file in an annotation."""
    if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Choice:
        yield kind
    for part in get_args(kind):
        yield from sections_in(part)


def study_keys() -> Iterator[str]:
    """Write all keys of a study file, section by section, and the recipes."""
    yield "# Study keys\n\nMade from the schema, `sculpt/config/`. A section is named by its path."

    def walk(schema: type[BaseModel], path: str) -> Iterator[str]:
        yield f"## {path or 'A study file'} {{ #{path or 'study'} }}\n\n{inspect.getdoc(schema)}"
        yield table("key, values, default, meaning", schema_rows(schema, said_of(schema)))
        for name, field in schema.model_fields.items():
            for inner in dict.fromkeys(sections_in(field.annotation)):
                yield from walk(inner, f"{path}.{name}" if path else name)

    yield from walk(Study, "")
    keys = dict.fromkeys(key for recipe in RECIPES.values() for key in recipe)
    yield "## Recipes { #recipes }\n\nWhat `training.recipe` sets where a study does not."
    rows = [[f"`{key}`", *(str(r.get(key, "")) for r in RECIPES.values())] for key in keys]
    yield table("key, " + ", ".join(RECIPES), rows)


def options() -> Iterator[str]:
    """Write everything that is registered, with its options."""
    yield "# Options\n\nWhat is chosen by its name. Made from the registries."
    r = registry
    for found in (r.CRITERIA, r.INITIALIZERS, r.MODELS, r.DATASETS):
        yield f"## {found.kind.capitalize()}"
        for name in found.names():
            docstring = inspect.getdoc(found.get(name)) or ""
            rows = schema_rows(r.options_schema(found.get(name)), arguments_in(docstring))
            yield f"### {found.kind} `{name}`\n\n" + docstring.partition("\n\n")[0]
            yield table("option, values, default, meaning", rows) or "It has no options."
    rows = [[f"`{n}`", f"`{(f := r.FORMATS.get(n)).file}`", f.purpose]
            for n in r.FORMATS.names()]  # fmt: skip
    yield "## Format of an export\n\n" + table("format, file, purpose", rows)


def quantities() -> Iterator[str]:
    """Write all measured quantities."""
    better = {None: "", "minimize": "lower", "maximize": "higher"}

    def row(q: Quantity) -> list[str]:
        objective = better[q.direction] + (" (only reported)" if q.report_only else "")
        early = "yes" if q.before_training or q.name in SIGNALS else ""
        unit = q.column_unit or q.unit
        return [f"`{q.name}`", unit, objective, better[q.proxy], early, q.meaning]

    columns = "name, unit, better as objective, better as proxy, before training, meaning"
    yield (
        "# Quantities\n\nWhat is measured of a trial, made from `sculpt/quantities.py`. Those with "
        "a direction may be objectives, or proxies that stop a candidate before training. In a "
        "study whose metric is not the classification error, errors are that metric."
    )
    yield table(columns, map(row, [*registry.QUANTITIES.entries(), *TOTALS]))
    steps = ", ".join(f"`{step}` ({when})" for step, when in MILESTONES.items())
    yield f"## Signals\n\nEach read at {steps}; columns are called `pruned_effective_nodes`, say."
    yield table(columns, map(row, SIGNALS.values()))


def json_types() -> Iterator[str]:
    """Write the types of the JSON documents."""
    yield "# Types of JSON documents\n\nMade from the code. [What keys mean](json.md) stands apart."
    seen: set[Any] = set()

    def walk(kind: Any, title: str) -> Iterator[str]:
        if kind not in seen and (is_typeddict(kind) or is_dataclass(kind)):
            seen.add(kind)
            hints, said = get_type_hints(kind, include_extras=True), said_of(kind)
            known = fields(kind) if is_dataclass(kind) else ()
            missing = {field.name for field in known if field.default is not MISSING}
            missing |= set(getattr(kind, "__optional_keys__", ()))
            yield f"## {title} {{ #{kind.__name__.lower()} }}\n\n{inspect.getdoc(kind)}"
            rows = [
                [f"`{k}`", spell(hint), "no" if k in missing else "yes", said.get(k, "")]
                for k, hint in hints.items()
            ]
            yield table("key, value, always there, meaning", rows)
            for hint in hints.values():
                yield from walk(hint, getattr(hint, "__name__", ""))
        for part in get_args(kind):
            yield from walk(part, getattr(part, "__name__", ""))

    for command, kind in DOCUMENTS.items():
        yield from walk(kind, f"sculpt {command}")


def commands() -> Iterator[str]:
    """Write every command with its options."""
    yield "# Commands\n\nMade from the command line; `sculpt COMMAND --help` prints the same."
    for command in COMMANDS:
        usage, rows = f"sculpt {command.__name__}", []
        for name, given in inspect.signature(command, eval_str=True).parameters.items():
            kind, info = get_args(given.annotation)
            is_option = hasattr(info, "prompt")
            decls = [x for x in (info.default, *(info.param_decls or ())) if "--" in str(x)]
            called = ", ".join(decls or [f"--{name.replace('_', '-')}"])
            if not is_option:
                called = info.metavar or name.upper()
                usage += f" {called}" if given.default is given.empty else f" [{called}]"
            value = "" if kind is bool else f" {info.metavar or ''}"
            shown = "" if given.default in (None, False, given.empty) else f"`{given.default}`"
            rows.append(
                [f"`{(called + value if is_option else called).strip()}`", shown, info.help or ""]
            )
        text, examples = help_of(command)
        yield f"## sculpt {command.__name__}\n\n`{usage}`\n\n{text}"
        yield table("argument, default, meaning", rows)
        yield f"```bash\n{examples}\n```"
