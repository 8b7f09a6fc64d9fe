"""Names find what is registered, files are found by themselves, and mistakes are named."""

import importlib
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path

import pytest
from pydantic import ValidationError
from torch import nn

from sculpt.errors import ConfigError, UnknownNameError
from sculpt.registry import (
    CRITERIA,
    DATASETS,
    INITIALIZERS,
    MODELS,
    OBJECTIVES,
    Registry,
    load_plugins,
    options_of,
    options_schema,
)

WriteLab = Callable[[dict[str, str]], Registry]

CIRCLE = """
from lab.registry import SHAPES

@SHAPES.register("circle")
def circle():
    return "round"
"""
PLUGIN = """
from sculpt.pruning.masks import prunable_parameters
from sculpt.registry import CRITERIA

@CRITERIA.register("largest_index")
def largest_index(model, task):
    return {
        name: parameter.new_ones(parameter.shape).flatten().cumsum(0).view_as(parameter)
        for name, parameter in prunable_parameters(model).items()
    }
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import `lab` and `my_lab` from; they and their criteria are then forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        CRITERIA, "_entries", {name: CRITERIA.get(name) for name in CRITERIA.names()}
    )
    yield tmp_path
    for name in list(sys.modules):
        if name.partition(".")[0] in ("lab", "my_lab"):
            del sys.modules[name]


@pytest.fixture
def write_lab(outside: Path) -> WriteLab:
    """Write a package `lab` with a registry `SHAPES` of the folder `lab/shapes`."""

    def write(files: dict[str, str]) -> Registry:
        shapes = outside / "lab" / "shapes"
        shapes.mkdir(parents=True)
        (outside / "lab" / "__init__.py").touch()
        (outside / "lab" / "registry.py").write_text(
            "from sculpt.registry import Registry\nSHAPES = Registry('shape', 'lab.shapes')\n"
        )
        (shapes / "__init__.py").touch()
        for name, text in files.items():
            (shapes / name).write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module("lab.registry").SHAPES

    return write


def square(name: str = "square") -> str:
    return CIRCLE.replace("circle", name).replace("round", "square")


def test_a_file_in_the_folder_is_found_by_itself_when_it_is_asked_for(
    write_lab: WriteLab, outside: Path
):
    shapes = write_lab({"circle.py": CIRCLE})
    package = outside / "lab" / "shapes" / "square_ones"  # a folder counts as a file
    package.mkdir()
    (package / "__init__.py").write_text(square())

    assert "lab.shapes.circle" not in sys.modules
    assert shapes.names() == ["circle", "square"]
    assert "lab.shapes.circle" in sys.modules
    assert shapes.get("circle")() == "round"
    assert shapes.get("square")() == "square"
    assert shapes.register("triangle")(square) is shapes.get("triangle") is square


def test_a_file_may_register_several_things_and_any_kind_of_thing(write_lab: WriteLab):
    shapes = write_lab({"two.py": CIRCLE + square() + "\nSHAPES.register('class')(dict)\n"})
    assert shapes.names() == ["circle", "class", "square"]
    assert shapes.get("class") is dict


def test_a_file_may_look_up_what_another_registers(write_lab: WriteLab):
    looking = "from lab.registry import SHAPES\nSHAPES.get('circle')\n"
    shapes = write_lab({"circle.py": CIRCLE, "looking.py": looking})
    assert shapes.names() == ["circle"]


def test_two_definitions_of_one_name_are_both_named(write_lab: WriteLab):
    shapes = write_lab({"circle.py": CIRCLE, "disk.py": CIRCLE.replace("def circle", "def disk")})
    with pytest.raises(ConfigError) as clash:
        shapes.names()
    message = str(clash.value)
    assert "a shape name must be unique, but 'circle' is registered by both" in message
    assert "lab.shapes.circle.circle and lab.shapes.disk.disk" in message
    assert "rename one" in message


def test_a_folder_that_cannot_be_loaded_fails_again_instead_of_missing_names(write_lab: WriteLab):
    shapes = write_lab({"circle.py": "import no_such_module_anywhere\n", "square.py": square()})
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
            shapes.get("square")


def test_reloading_a_module_replaces_its_own_definition(write_lab: WriteLab, outside: Path):
    shapes = write_lab({"circle.py": CIRCLE})
    first = shapes.get("circle")
    importlib.reload(sys.modules["lab.shapes.circle"])
    assert shapes.get("circle") is not first
    assert shapes.names() == ["circle"]


def test_an_unknown_name_is_answered_with_the_known_ones(write_lab: WriteLab):
    shapes = write_lab({"square.py": square(), "circle.py": CIRCLE})
    with pytest.raises(UnknownNameError) as refusal:
        shapes.get("cirlce")
    assert str(refusal.value).startswith(
        "shape must be one of circle, square, but got 'cirlce'; one of a plug-in needs its module"
    )


@pytest.mark.parametrize(
    ("registry", "promised"),
    [
        (CRITERIA, ["connection_sensitivity", "grasp", "magnitude", "random", "synflow"]),
        (DATASETS, ["cifar10", "digits", "image_folder"]),
        (INITIALIZERS, ["from_bundle", "gaussian", "ldi", "variance_scaling"]),
        (MODELS, ["mlp", "resnet", "vgg16"]),
        (OBJECTIVES, ["kept_macs", "val_error"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Registry) else "",
)
def test_the_registries_hold_what_is_promised_sorted(registry: Registry, promised: list[str]):
    names = registry.names()
    assert set(promised) <= set(names)
    assert names == sorted(set(names))
    assert all(registry.get(name) is not None for name in names)
    with pytest.raises(UnknownNameError, match=f"^{registry.kind} must be one of {names[0]}, "):
        registry.get("no such thing")


POSITIONAL = {
    CRITERIA: [["model", "task"]],
    DATASETS: [[]],
    INITIALIZERS: [["layer", "generator"], ["model", "seed"]],
    MODELS: [["channels", "classes"], ["channels", "classes", "pixels"]],
}
"""What each kind of thing is given besides its options, one way or another."""
ENTRIES = [(registry, name) for registry in POSITIONAL for name in registry.names()]


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=lambda value: str(value)[:30])
def test_options_are_keywords_that_a_study_file_can_be_checked_against(
    registry: Registry, name: str
):
    entry = registry.get(name)
    options = options_of(entry)
    others = [name for name in signature(entry).parameters if name not in options]
    assert others in POSITIONAL[registry]
    for option in options.values():
        assert (option.default is option.empty) == (option.name == "bundle"), option
        assert option.annotation is not option.empty, option
    schema = options_schema(entry)
    given = {"bundle": "winner"} if "bundle" in options else {}
    defaults = schema(**given)
    assert list(defaults.model_dump()) == list(options)
    assert schema.model_validate(defaults.model_dump()) == defaults
    with pytest.raises(ValidationError):
        schema.model_validate(given | {"no_such_option": 1})


@pytest.mark.parametrize("name", ["my_lab", "my_lab.criteria.index"])
def test_a_plugin_registers_from_outside(outside: Path, name: str):
    path = outside / f"{name.replace('.', '/')}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PLUGIN)
    assert "largest_index" not in CRITERIA.names()

    load_plugins([name])

    assert "largest_index" in CRITERIA.names()
    scores = CRITERIA.get("largest_index")(nn.Linear(2, 1), None)
    assert scores["weight"].tolist() == [[1, 2]]
    load_plugins([name])  # again is no clash


def test_a_plugin_cannot_take_a_name_that_is_taken(outside: Path):
    (outside / "my_lab.py").write_text(PLUGIN.replace('"largest_index"', '"magnitude"'))
    with pytest.raises(ConfigError, match=r"both sculpt\..*\.magnitude and my_lab\.largest_index"):
        load_plugins(["my_lab"])
    assert CRITERIA.get("magnitude").__module__ == "sculpt.pruning.criteria.magnitude"


def test_a_plugin_that_is_not_there_is_named_with_the_way_out():
    with pytest.raises(ConfigError) as refusal:
        load_plugins(["no_such_lab.criterion"])
    message = str(refusal.value)
    assert "'no_such_lab.criterion' is not" in message
    assert "No module named 'no_such_lab'" in message
    assert "PYTHONPATH=." in message


def test_a_plugin_that_lacks_something_itself_says_what(outside: Path):
    (outside / "my_lab.py").write_text("import no_such_dependency\n")
    with pytest.raises(ConfigError, match=r"'my_lab' is not .*'no_such_dependency'"):
        load_plugins(["my_lab"])


BROKEN = ["1 +", "1 / 0", "import no_such_dependency", "raise ValueError('no')"]


@pytest.mark.parametrize("name", ["", ".", ".x", "..x.y", "a\0b", "a b", "my lab", "x" * 5000])
def test_a_plugin_whose_name_is_none_is_refused(name: str):
    with pytest.raises(ConfigError, match="plugins must be importable modules"):
        load_plugins([name])


@pytest.mark.parametrize("text", BROKEN)
def test_a_plugin_that_fails_is_named_with_its_error(outside: Path, text: str):
    (outside / "my_lab.py").write_text(text)
    with pytest.raises(ConfigError, match=r"'my_lab' is not \(.*(Error|No module)"):
        load_plugins(["my_lab"])


BOUNDED = """
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sculpt.registry import CRITERIA

Share = Annotated[float, Field(gt=0, le=1)]

@CRITERIA.register("bounded")
def bounded(model, task, *, share: Share = 0.5, parts: list[Share] | None = None, free=None):
    return {}

@CRITERIA.register("odd")
def odd(model, task, *, other: Nothing = None):
    return {}
"""


def test_the_options_of_a_plugin_have_the_bounds_that_it_declares(outside: Path):
    (outside / "my_lab.py").write_text(BOUNDED)
    load_plugins(["my_lab"])
    schema = options_schema(CRITERIA.get("bounded"))
    for good in ({}, {"share": 1.0}, {"parts": [0.5, 1]}, {"free": [object]}):
        schema.model_validate(good)
    for bad in ({"share": 0.0}, {"share": float("nan")}, {"parts": [2]}, {"share": "1"}, {"x": 1}):
        with pytest.raises(ValidationError):
            schema.model_validate(bad)
    with pytest.raises(ConfigError, match=r"one of my_lab\.odd has not .*'Nothing' is not defined"):
        options_schema(CRITERIA.get("odd"))
