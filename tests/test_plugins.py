"""What is read never says what is run: plug-ins are imported where a user names them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sculpt
from sculpt.errors import ConfigError
from sculpt.registry import CRITERIA, DATASETS, MODELS, OBJECTIVES, QUANTITIES
from sculpt.search.clusters.invitation import invite
from sculpt.search.progress import Watcher
from sculpt.search.workers.devices import WorkerCount
from studies import write_study

MODULE = "lab_of_somebody"

PLUGIN = """
from pathlib import Path
from torch import nn
from sculpt.quantities import Quantity, register
from sculpt.registry import MODELS

with Path(__file__).with_name("imports").open("a") as file:
    file.write("imported\\n")

@MODELS.register("lab_net")
def lab_net(channels, classes, pixels, *, widening: int = 1):
    return nn.Sequential(
        nn.Conv2d(channels, 4 * widening, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4 * widening, classes),
    )

register(Quantity("lab_cost", "macs", "", lambda record: record.kept_macs, direction="minimize"))
"""

Forget = Callable[[], None]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study whose plug-in can be imported from its folder, where the process works."""
    (tmp_path / f"{MODULE}.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return write_study(
        tmp_path,
        plugins=[MODULE],
        model={"name": "lab_net"},
        space={"parameters": {"widening": [2]}},
        search__trials=2,
        search__replicates=1,
        search__objectives=["val_error", "lab_cost"],
    )


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Forget:
    """Undo the import of the plug-in, and of all that it registered."""
    registries = (CRITERIA, DATASETS, MODELS, OBJECTIVES, QUANTITIES)
    known = {registry: registry.names() and dict(registry._entries) for registry in registries}

    def undo() -> None:
        sys.modules.pop(MODULE, None)
        for registry, entries in known.items():
            monkeypatch.setattr(registry, "_entries", dict(entries))

    undo()
    return undo


def imports(path: Path) -> int:
    return len((path.parent / "imports").read_text().splitlines())


@pytest.mark.slow
def test_reading_a_study_imports_nothing(lab: Path, forget: Forget, sculpt_command: Any) -> None:
    sculpt.run(lab)  # one's own file: its plug-in is imported
    sculpt.export_trial(lab, 0, "winner")
    sculpt.archive(sculpt.open_results(lab), "archived")
    forget()
    before = imports(lab)
    unknown = f"{'lab_net'!r}; its study had plug-ins: {MODULE!r}. Name the one"
    for study in ("tiny.yaml", "./archived"):
        for command, code, said in [
            (["status", study], 0, ""),
            (["show", study, "0"], 0, ""),
            (["rank", study], 0, ""),
            (["compare", f"{study}:0", f"{study}:base"], 0, ""),
            (["archive", study, "--output", "again"], 0, ""),
            (["pareto", study, "--objectives", "val_error,macs"], 0, ""),
            (["pareto", study], 2, "got 'lab_cost'; one of a plug-in needs its module named"),
            (["report", study], 0, ""),
        ]:
            found, _, error = sculpt_command(*command)
            assert (found, said in error) == (code, True), (command, error)
    for command, said in [
        (["export", "tiny.yaml", "--trial", "0"], unknown),
        (["verify", "winner"], unknown),
        (["latency", "winner", "--turns", "1"], unknown),
        (["worker", "tiny", "--storage", "tiny.db"], f"give --plugins {MODULE} (in Python, "),
    ]:
        found, _, error = sculpt_command(*command)
        assert (found, said in error, error.count("\n")) == (2, True, 1), (command, error)
    assert MODULE not in sys.modules
    assert imports(lab) == before

    for command in (
        ["pareto", "./archived"],
        ["report", "./archived"],
        ["verify", "winner", "--json"],
        ["export", "tiny.yaml", "--trial", "0", "--output", "other"],
        ["worker", "tiny", "--storage", "tiny.db"],
    ):
        forget()
        code, _, error = sculpt_command(*command, "--plugins", MODULE)
        assert code == 0, (command, error)
        assert MODULE in sys.modules
    forget()
    assert sculpt_command("worker", lab)[0] == 0, "one's own file names what it needs"


@pytest.mark.slow
def test_a_study_runs_only_with_its_plugins_imported(lab: Path, forget: Forget) -> None:
    config = sculpt.load_study(lab)
    invitation = invite(config, "cpu", WorkerCount())
    forget()
    with pytest.raises(ConfigError, match=f"if you trust it, give --plugins {MODULE}"):
        sculpt.run(config)  # perhaps from the results of somebody else
    assert not Path("tiny.db").exists()
    sculpt.run(sculpt.load_study(lab), overrides=None, workers=2)
    forget()
    invitation(Watcher())
    assert MODULE in sys.modules


@pytest.mark.parametrize("name", ["no_such_lab", "", ".", "a\0b"])
def test_a_plugin_that_cannot_be_imported_is_said(name: str, sculpt_command: Any) -> None:
    code, out, error = sculpt_command("status", "tiny", "--plugins", name)
    assert (code, out) == (2, "")
    assert f"plugins must be importable modules, but {name!r} is not" in error


@pytest.mark.usefixtures("forget")
def test_the_module_of_an_unknown_name_is_asked_for(lab: Path, sculpt_command: Any) -> None:
    code, _, error = sculpt_command("check", lab, "--set", "plugins=[]", "--json")
    assert code == 2
    assert "but got 'lab_net'; one of a plug-in needs its module named: --plugins" in error
    assert MODULE not in sys.modules
