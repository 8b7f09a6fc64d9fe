"""The rules of the house: imports run downward, and lint and types are clean."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from studies import write_study

ROOT = Path(__file__).resolve().parents[1]

# Floors, lowest first. A module may import what stands on a lower floor, and its own room.
FLOORS = [
    ["descriptions", "dominance", "errors", "files", "units", "version"],
    ["arithmetic", "registry", "seeding", "documents", "table", "typed_json"],
    ["quantities", "record"],
    ["config"],
    ["study_file"],
    ["models", "data", "bundle"],
    ["graph"],
    ["diagnostics"],
    ["initializers"],
    ["pruning", "repair"],
    ["compaction"],
    ["training", "export"],
    ["trial_setup"],
    ["measuring", "run_folder", "summary"],
    ["trial"],
    ["storage"],
    ["search"],
    ["results", "recorded_errors"],
    ["presentation"],
    ["benchmark"],
    ["first_study", "launch", "exports", "reports"],
    ["cli"],
    ["__main__"],
]
# Floors inside of a room, lowest first: of its folders and files.
INSIDE = {
    "storage": [
        ["attributes", "failures", "optuna_names", "process_identity"],
        ["postgres", "sqlite_file"],
        ["study_storage"],
        ["stored_trials"],
        ["trials"],
        ["artifacts"],
        ["store"],
        ["trial_files"],
        ["archive"],
        ["opening"],
    ],
    "search": [
        ["images", "progress", "sampling", "wanted_trials"],
        ["opponents"],
        ["confirmation_queue"],
        ["workers"],
        ["session"],
        ["clusters"],
    ],
    "results": [
        ["columns", "formats", "kept_values", "rows", "statistics"],
        ["records"],
        [
            "against_opponents",
            "against_published",
            "comparison",
            "confirmed_errors",
            "dense_frontier",
            "pareto",
            "proxies",
        ],
        ["published", "ranking"],
        ["tables"],
        ["verdict"],
    ],
    "presentation": [
        ["details", "figures", "reproduction"],
        ["content"],
        ["candidate_figures", "interval_figures", "parameter_figures"],
        ["network_figures"],
        ["dashboard", "markdown", "page"],
        ["archiving"],
    ],
    "export": [
        ["manifest", "metadata", "program"],
        ["c_code", "loading", "lowering", "module", "onnx_file"],
        ["condensing", "runtimes"],
        ["formats"],
        ["card", "latency"],
        ["folder"],
    ],
}
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FLOOR_INSIDE = {
    room: {part: floor for floor, parts in enumerate(floors) for part in parts}
    for room, floors in INSIDE.items()
}

# Configs never enter the maths: these rooms know what tensors and modules are, and no more.
WITHOUT_CONFIG = {
    "models",
    "data",
    "bundle",
    "graph",
    "diagnostics",
    "initializers",
    "pruning",
    "repair",
}
MAY_IMPORT_OPTUNA = {
    "storage",
    "search",
    "results/records",
    "presentation/parameter_figures",
    "presentation/dashboard/annotations",
    "presentation/dashboard/attributes",
}


def modules() -> list[Path]:
    return sorted((ROOT / "sculpt").rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "sculpt").parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """Return every dotted name that a file imports, at any depth of its code."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports must be absolute"
            names.append(node.module or "")
    return names


def lines_of_rooms() -> dict[str, int]:
    found: dict[str, int] = {}
    for path in modules():
        if path.parent != ROOT / "sculpt":
            lines = len(path.read_text().splitlines())
            found[room_of(path)] = found.get(room_of(path), 0) + lines
    return found


def test_no_room_is_too_large_to_know():
    assert {room: lines for room, lines in lines_of_rooms().items() if lines > 4500} == {}


def faults_of(path: Path) -> list[str]:
    room, faults = room_of(path), []
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "optuna":
            place = str(path.relative_to(ROOT / "sculpt").with_suffix(""))
            if room not in MAY_IMPORT_OPTUNA and place not in MAY_IMPORT_OPTUNA:
                faults.append(f"{path.name}: {place} may not import optuna")
        if parts[0] != "sculpt" or len(parts) == 1:
            continue
        if parts[1] == room:
            faults += inside_fault(path, room, parts)
            continue
        if FLOOR_OF[parts[1]] >= FLOOR_OF[room]:
            faults.append(f"{path.name}: {room} may not import {parts[1]}: up or sideways")
        if room in WITHOUT_CONFIG and parts[1] in ("config", "study_file", "documents"):
            faults.append(f"{path.name}: {room} may not know the study's configuration")
    return faults


def inside_fault(path: Path, room: str, imported: list[str]) -> list[str]:
    """Return what is wrong with an import inside of a room."""
    floors = FLOOR_INSIDE.get(room)
    own = path.relative_to(ROOT / "sculpt" / room).parts[0].removesuffix(".py")
    if floors is None or len(imported) == 2 or imported[2] == own or own == "__init__":
        return []
    if floors[imported[2]] >= floors[own]:
        return [f"{path.name}: {room}.{own} may not import {'.'.join(imported)}: up or sideways"]
    return []


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downward(path: Path) -> None:
    if path == ROOT / "sculpt" / "__init__.py":
        pytest.skip("the package's front door names every room, and imports them lazily")
    assert room_of(path) in FLOOR_OF, "a new room needs a floor, here and in CONTRIBUTING.md"
    assert not faults_of(path)


def test_an_arrow_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sculpt" / "pruning"
    package.mkdir(parents=True)
    file = package / "bad.py"
    file.write_text("def f():\n    from sculpt.trial import run_seed\n    import optuna\n")
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert len(faults_of(file)) == 2
    inside = tmp_path / "sculpt" / "storage" / "archive" / "bad.py"
    inside.parent.mkdir(parents=True)
    inside.write_text(
        "from sculpt.storage.opening import open_store\nfrom sculpt.search.progress import x\n"
    )
    assert len(faults_of(inside)) == 2


@pytest.mark.parametrize("name", ["utils.py", "common", "base.py", "helpers.py", "misc.py"])
def test_no_room_without_a_meaning(name: str) -> None:
    assert not list((ROOT / "sculpt").rglob(name))


def test_the_method_is_one_page() -> None:
    assert len((ROOT / "sculpt" / "trial.py").read_text().splitlines()) <= 90


def test_few_frames_lie_between_the_command_and_the_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of ours: whoever asks how a study comes to a network follows this many calls."""
    from sculpt import trial
    from sculpt.cli import app
    from sculpt.search.workers import worker

    found: dict[str, list[str]] = {}

    def watched(setup: Any, *rest: Any) -> Any:
        stack = [frame for frame in inspect.stack() if f"{ROOT / 'sculpt'}/" in frame.filename]
        found[setup.role] = [frame.function for frame in stack[: _place_of_command(stack)]]
        return trial.run_seed(setup, *rest)

    monkeypatch.setattr(worker, "run_seed", watched)
    path = write_study(tmp_path, search__trials=2, search__replicates=1)
    assert CliRunner().invoke(app, ["run", str(path), "--json"]).exit_code == 0
    assert found.keys() == {"base", "candidate"}
    for names in found.values():
        assert len(names) <= 7, names


def _place_of_command(stack: list[inspect.FrameInfo]) -> int:
    return next(i for i, frame in enumerate(stack) if frame.filename.endswith("cli/running.py"))


def test_import_is_light() -> None:
    """`import sculpt` must not pay for PyTorch, Optuna or pandas."""
    code = (
        "import sys, sculpt; sculpt.__all__; "
        "print([m for m in ('torch', 'optuna', 'pandas', 'pydantic') if m in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr


def test_the_public_names_exist() -> None:
    import sculpt

    for name in sculpt.__all__:
        assert callable(getattr(sculpt, name))
    with pytest.raises(AttributeError, match="no attribute 'prunee'"):
        _ = sculpt.prunee


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check"],
        ["ruff", "format", "--check"],
        pytest.param(["mypy"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_lint_and_types(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
