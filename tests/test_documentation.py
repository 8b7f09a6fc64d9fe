"""What the documents tell people to type works."""

import inspect
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from manual import ROOT, block, blocks, pages, readable_links, text_of

import sculpt
from sculpt.cli import COMMANDS
from sculpt.registry import CRITERIA, OBJECTIVES, QUANTITIES
from sculpt.search.images import describe_data
from sculpt.search.opponents import opponent_sizes
from sculpt.study_file import load_study
from studies import write_study

GENERATED = ("study-keys", "options", "quantities", "json-types", "commands")
"""Pages of the reference that exist only where the documentation is built."""


@pytest.mark.slow
def test_the_readme_prunes_a_network_of_the_reader():
    scope: dict[str, object] = {}
    exec(block("python", "sculpt.prune("), scope)
    masks, model = scope["masks"], scope["model"]
    assert isinstance(masks, dict)
    before = {name: mask.clone() for name, mask in masks.items()}
    assert sum(int(mask.sum()) for mask in masks.values()) == 500_000
    exec(block("python", "move_masks"), scope)
    assert sum(int(mask.sum()) for mask in masks.values()) == 500_000
    assert any(not torch.equal(masks[name], before[name]) for name in masks)
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_the_contributor_s_criterion_and_quantity_run_as_a_plugin(tmp_path, monkeypatch):
    found = blocks("python", text_of("CONTRIBUTING.md"))
    assert [len(block.splitlines()) < 40 for block in found] == [True, True]
    (tmp_path / "my_lab_criterion.py").write_text("\n".join(found))
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (CRITERIA, OBJECTIVES, QUANTITIES):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    path = write_study(
        tmp_path,
        plugins=["my_lab_criterion"],
        pruning={"criterion": {"name": "scaled_magnitude", "power": 0.25}},
        search__trials=2,
        search__replicates=1,
        search__objectives=["val_error", "macs_per_parameter"],
    )
    try:
        results = sculpt.run(path)
        table = results.complete
        assert set(table["kept_parameters"]) == {4874}
        assert (table["macs_per_parameter"] == table["kept_macs"] / 4874).all()
        assert "macs_per_parameter" in set(results.columns["name"])
        assert results.record(0)["config"]["pruning"]["criterion"]["power"] == 0.25
    finally:
        sys.modules.pop("my_lab_criterion", None)


@pytest.mark.slow
def test_the_reader_s_own_network_and_data_run_as_a_study(tmp_path, monkeypatch):
    sculpt.write_study(tmp_path / "waves.yaml", "import")
    written = yaml.safe_load((tmp_path / "waves.yaml").read_text())
    shown = yaml.safe_load(block("yaml", "my_lab:make_net"))
    assert shown == {key: written[key] for key in shown}
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        results = sculpt.run("waves.yaml")
        assert len(results.complete) == 3
        document = sculpt.rank(results)
        assert document["metric"] == {"name": "rmse", "share": False}
        assert document["ranking"][0]["val_error"]["mean"] < 0.3, "of targets from 0 to 1"
        sculpt.export_trial(results, 0, "won")
        assert sculpt.load("won").model(torch.zeros(5, 2, 64)).shape == (5, 1)
    finally:
        sys.modules.pop("my_lab", None)


@pytest.mark.slow
def test_the_documented_opponents_are_some_of_a_study_that_ships(tmp_path):
    opponents = yaml.safe_load(block("yaml", "opponents:\n"))
    study = load_study(ROOT / "studies" / "cifar10_hour.yaml", opponents)
    sizes = opponent_sizes(study, describe_data(study))
    assert [size["opponent"] for size in sizes][:2] == ["dense blocks 1", "dense blocks 2"]
    assert len(sizes) == len(study.opponents) == 7
    for size in sizes[:2]:
        assert abs(size["dense_parameters"] / 269_034 - 1) <= 0.01


def test_every_study_and_space_that_is_named_exists():
    for text in (*pages().values(), text_of("CONTRIBUTING.md")):
        named = set(re.findall(r"(?:studies|search_spaces)/[\w./]*\.yaml", text))
        assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert "studies/digits.yaml" in text_of("README.md")


def test_ci_runs_the_readme_s_test_command():
    readme, ci = text_of("README.md"), text_of(".ci/run")
    command = next(line for line in ci.splitlines() if line.startswith("python3 -m venv"))
    assert f"\n{command}\n" in readme


def test_the_readme_takes_ten_minutes():
    readme = text_of("README.md")
    assert len(readme.splitlines()) <= 220
    assert len(readme.encode()) <= 14_000


def test_the_readme_s_own_study_is_whole(tmp_path):
    (tmp_path / "mine.yaml").write_text(block("yaml", "study: mine"))
    found = sculpt.check(tmp_path / "mine.yaml", {"data": {"name": "digits"}})
    assert (found["space_size"], found["trials"]) == (6, 7)
    assert all(corner["feasible"] for corner in found["corners"])


@pytest.mark.parametrize("name", pages())
def test_links_between_pages_as_they_lie_in_the_repository(name):
    place = (ROOT / name).parent
    made = {(ROOT / "docs" / "reference" / f"{page}.md") for page in GENERATED}
    made.add(ROOT / "docs" / "measured" / "published.png")
    for target in readable_links(name):
        path = (place / target).resolve()
        assert path.exists() or path in made, target


def options_of(command) -> set[str]:
    """The options of a command of sculpt's."""
    found = {"--help"}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        info = get_args(parameter.annotation)[1]
        declared = [text for text in (info.default, *(info.param_decls or ())) if "--" in str(text)]
        found |= set(declared or [f"--{name.replace('_', '-')}"])
    return found


@pytest.mark.parametrize("name", pages())
def test_commands_that_are_shown_exist(name):
    known = {command.__name__: options_of(command) for command in COMMANDS}
    for shown in blocks("bash", pages()[name]):
        for line in shown.replace("\\\n", " ").splitlines():
            for words in re.findall(r"(?<![\w/.'\[-])sculpt ([^#&|]*)", line):
                command, *rest = words.split()
                assert command in known, line
                used = {word for word in rest if word.startswith("--")}
                assert used - known[command] == set(), line


def test_every_function_is_in_the_reference():
    named = re.findall(r"^::: sculpt\.(\w+)$", text_of("docs/reference/api.md"), flags=re.MULTILINE)
    assert sorted(named) == sculpt.__all__


class Page(HTMLParser):
    """What a page of the documentation links to, loads, and may be linked at."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag != "a" and (address := given.get("src") or given.get("href")):
            self.loaded.append(address)


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning_and_every_link_leads_somewhere(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    found = {path.resolve(): Page(path) for path in tmp_path.rglob("*.html")}
    named = {path.relative_to(tmp_path.resolve()).as_posix() for path in found}
    assert {f"reference/{page}.html" for page in (*GENERATED, "api")} <= named
    del found[tmp_path.resolve() / "404.html"]  # is served at any address, so its links are others
    for path, page in found.items():
        assert not re.search(r"-8 ?&lt;", path.read_text()), f"{path} includes what is not there"
        assert [address for address in page.loaded if "://" in address] == [], "works offline"
        for link in (*page.links, *page.loaded):
            if re.match(r"(https?|mailto|data):", link):
                continue
            target, _, anchor = link.partition("#")
            place = (path.parent / target).resolve() if target else path
            assert place.exists(), f"{path}: {link}"
            if anchor and place in found:
                assert anchor in found[place].anchors, f"{path}: {link}"
    keys = (tmp_path / "reference" / "study-keys.html").read_text()
    assert "grace_seconds" in keys
    assert "gradual_magnitude" in keys
    assert "singular values" in (tmp_path / "reference" / "api.html").read_text()
