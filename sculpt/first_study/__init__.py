"""A study file to begin with: it runs as it is, and its comments are those of the schema."""

import inspect
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, TypeAdapter

from sculpt.config import Study, StudyName
from sculpt.descriptions import arguments_in, said_of
from sculpt.errors import DataError, InputError, check_choice
from sculpt.files import replacing
from sculpt.first_study import my_lab
from sculpt.registry import DATASETS
from sculpt.study_file import CHOICES

Kind = Literal["digits", "image_folder", "import"]
WIDTH = 92
MODULE = "my_lab"
"""Written beside a study of the kind `import`, which names its functions."""

CRITERION = {"name": "connection_sensitivity", "targets": "uniform", "batch_norm": "batch"}
SGD = {"epochs": 10, "batch_size": 64, "schedule": "one_cycle", "nesterov": True}
OF_IMAGES: dict[str, Any] = {
    "space": {"parameters": {"widening": [2, 4], "blocks": [1, 2]}},
    "pruning": {"initializer": {"name": "ldi"}, "criterion": CRITERION, "repair": True},
}
BEGUN: dict[str, dict[str, Any]] = {
    "digits": {  # studies/digits.yaml
        "data": {"name": "digits", "validation_fraction": 0.35},
        "model": {"name": "resnet", "widening": 1, "blocks": 1, "stem_width": 1},
        "space": {"parameters": {"widening": [1.5, 2, 3]}},
        "pruning": OF_IMAGES["pruning"] | {"layer_budgets": "erk"},
        "training": SGD | {"learning_rate": 0.3, "precision": "float32"},
        "search": {"replicates": 8},
    },
    "image_folder": OF_IMAGES
    | {
        "data": {"name": "image_folder", "root": "", "size": 32, "validation_fraction": 0.2},
        "model": {"name": "resnet", "widening": 1, "blocks": 1, "stem_width": 8},
        "training": SGD | {"learning_rate": 0.2, "flip": True, "translate": 2},
    },
    "import": {
        "data": {"name": "import", "factory": f"{MODULE}:load", "count": 400},
        "model": {"name": "import", "factory": f"{MODULE}:make_net", "width": 8},
        "task": {"loss": "mse", "metric": "rmse"},
        "space": {"parameters": {"width": [12, 16]}},
        "pruning": {"initializer": {"name": "ldi"}, "criterion": {"name": CRITERION["name"]}},
        "training": SGD | {"learning_rate": 0.02},
    },
}
SEARCH = {
    "trials": "all",
    "replicates": 3,
    "objectives": ["val_error", "kept_macs"],
    "early_stopping": {"first_rung": 3},
    "confirm": {"top": 1, "seeds": 8},
}
OFF = ("data.train_images", "search.early_stopping", "search.confirm", "opponents")
"""Keys that are shown, and not set."""


def write_study(path: str | Path, data: Kind = "digits", *, root: str | None = None) -> list[Path]:
    """Write a commented study file that runs as it is, and nothing over a file that is there.

    Args:
        path: The file, whose name without `.yaml` becomes that of the study.
        data: `digits` come with scikit-learn, an `image_folder` is your own, and `import` is data
            and a network of your own code, which is written beside the file, to be changed.
        root: The images of an `image_folder`, in train/CLASS/ and test/CLASS/.

    Returns:
        The files that were written, the study first.

    Raises:
        InputError: A file is there already, its name is none of a study, or the images are not
            there.
    """
    path = Path(path)
    check_choice("data", data, get_args(Kind))
    document = {"study": _name_of(path)} | _document(data, root)
    texts = {path: _written(document, path, data)}
    if data == "import":
        texts[path.with_name(f"{MODULE}.py")] = inspect.getsource(my_lab)
    _create(texts)
    return list(texts)


def _name_of(path: Path) -> str:
    try:
        if path.suffix not in (".yaml", ".yml"):
            raise ValueError
        return str(TypeAdapter(StudyName).validate_python(path.stem))
    except ValueError as error:  # of which a ValidationError is one
        raise InputError(
            "a study file must be called NAME.yaml, and a name begin with a letter or a digit and "
            f"go on with those, '.', '-' and '_', but got {path.name!r}; choose such a name"
        ) from error


def _document(data: Kind, root: str | None) -> dict[str, Any]:
    """Make the study that a file begins with, without its name.

    Raises:
        InputError: Images must be named and are not, or cannot be found.
    """
    begun = BEGUN[data]
    if (root is not None) != (data == "image_folder"):
        raise InputError(
            "the folder of images must be given for an image_folder, and for nothing else, but got "
            f"{'none' if root is None else repr(root)} for {data}; "
            + (
                "give --root DIR, which holds train/ and test/"
                if root is None
                else "leave --root out"
            )
        )
    if root is not None:
        begun = begun | {"data": begun["data"] | {"root": root}}
        if fault := DATASETS.get(data)(root=root).available():
            raise DataError(fault)
    return {
        "data": begun["data"] | {"train_images": 300},
        "model": begun["model"],
        **({"task": begun["task"]} if "task" in begun else {}),
        "space": begun["space"],
        "budget": "base",
        "pruning": begun["pruning"],
        "training": begun["training"],
        "search": SEARCH | begun.get("search", {}),
        "opponents": [{"name": "erk"}],
    }


def _written(document: Mapping[str, Any], path: Path, data: Kind) -> str:
    """Write a whole study file."""
    found = [f"PYTHONPATH={path.parent}"] if data == "import" else []
    about = (
        f"Run it: {shlex.join([*found, 'sculpt', 'run', str(path)])}",
        "A comment says what the key below it means. A key right behind a # is not set: take the # "
        "away to set it. docs/reference/study-keys.md has all keys, docs/reference/options.md the "
        "options of all that has a name.",
    )
    lines = [line for text in about for line in _comment(text, "")]
    return "\n".join([*lines, *_lines(document, Study)]) + "\n"


def _lines(values: Mapping[str, Any], kind: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the lines of a section of a study, or of a choice with its options."""
    indent = "  " * (path.count(".") + 1) if path else ""
    said = said_of(kind) | _said_of_options(path, values)
    for key, value in values.items():
        if not path:
            yield ""
        place = f"{path}.{key}" if path else key
        inner = kind.model_fields[key].annotation if key in kind.model_fields else None
        if place not in OFF and inspect.isclass(inner) and issubclass(inner, BaseModel):
            yield from _comment(said.get(key) or inspect.getdoc(inner) or "", indent)
            yield f"{indent}{key}:"
            yield from _lines(value, inner, place)
        else:
            yield from _comment(said.get(key, ""), indent)
            yield f"{indent}{'#' if place in OFF else ''}{key}: {_in_one_line(value)}"


def _said_of_options(path: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Read what a choice says of itself and of its options."""
    if path not in CHOICES:
        return {}
    entry = CHOICES[path].get(values["name"])
    texts = [inspect.getdoc(entry) or ""]
    if "factory" in values:
        texts.append(inspect.getdoc(getattr(my_lab, values["factory"].partition(":")[2])) or "")
    said = {name: text for found in texts for name, text in arguments_in(found).items()}
    return said | {"name": texts[0]}


def _comment(text: str, indent: str) -> list[str]:
    """Fold the first paragraph of a text into lines of comment."""
    first = " ".join(text.strip().partition("\n\n")[0].split())
    mark = f"{indent}# "
    return textwrap.wrap(
        first, WIDTH, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False
    )


def _in_one_line(value: Any) -> str:
    """Write a value as YAML on one line."""
    listed = yaml.safe_dump(
        [value], default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True
    )
    return listed.strip()[1:-1]


def _create(texts: Mapping[Path, str]) -> None:
    """Write new files, all of them or none.

    Raises:
        InputError: One of them is there already, or cannot be written.
    """
    claimed: list[Path] = []
    try:
        for path in texts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(exist_ok=False)  # claims the name, whoever else writes there
            claimed.append(path)
        for path, text in texts.items():
            with replacing(path) as part:
                part.write_text(text, encoding="utf-8")
    except BaseException as error:
        for new in claimed:
            new.unlink()
        if not isinstance(error, OSError):
            raise
        reason = "is there already" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(
            f"a study must be written into files that are new, but {path} cannot be: {reason}; "
            "choose another FILE, or move that one away"
        ) from error
