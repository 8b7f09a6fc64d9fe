"""What the documents tell people to type works."""

import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

import sculpt
from sculpt.registry import CRITERIA, OBJECTIVES, QUANTITIES
from sculpt.search.images import describe_data
from sculpt.search.opponents import opponent_sizes
from sculpt.study_file import load_study
from studies import write_study

ROOT = Path(__file__).resolve().parents[1]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


@pytest.mark.slow
def test_the_readme_prunes_a_network_of_the_reader():
    block = next(block for block in python_blocks("README.md") if "sculpt.prune" in block)
    scope: dict[str, object] = {}
    exec(block, scope)
    masks, model = scope["masks"], scope["model"]
    assert isinstance(masks, dict)
    before = {name: mask.clone() for name, mask in masks.items()}
    assert sum(int(mask.sum()) for mask in masks.values()) == 500_000
    exec(next(block for block in python_blocks("README.md") if "move_masks" in block), scope)
    assert sum(int(mask.sum()) for mask in masks.values()) == 500_000
    assert any(not torch.equal(masks[name], before[name]) for name in masks)
    assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())


def test_the_contributor_s_criterion_and_quantity_run_as_a_plugin(tmp_path, monkeypatch):
    blocks = python_blocks("CONTRIBUTING.md")
    assert [len(block.splitlines()) < 40 for block in blocks] == [True, True]
    (tmp_path / "my_lab_criterion.py").write_text("\n".join(blocks))
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
    module = next(block for block in python_blocks("README.md") if "def make_net" in block)
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    study = next(block for block in blocks if "my_lab:make_net" in block)
    (tmp_path / "my_lab.py").write_text(module)
    (tmp_path / "frequency.yaml").write_text(study)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    try:
        results = sculpt.run("frequency.yaml")
        assert len(results.complete) == 3
        document = sculpt.rank(results)
        assert document["metric"] == {"name": "rmse", "share": False}
        assert document["ranking"][0]["val_error"]["mean"] < 0.3, "of targets from 0 to 1"
        sculpt.export_trial(results, 0, "won")
        assert sculpt.load("won").model(torch.zeros(5, 2, 64)).shape == (5, 1)
    finally:
        sys.modules.pop("my_lab", None)


@pytest.mark.slow
def test_the_readme_s_opponents_are_some_of_a_study_that_ships(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    block = next(block for block in blocks if block.startswith("opponents:"))
    study = load_study(ROOT / "studies" / "cifar10_hour.yaml", yaml.safe_load(block))
    sizes = opponent_sizes(study, describe_data(study))
    assert [size["opponent"] for size in sizes][:2] == ["dense blocks 1", "dense blocks 2"]
    assert len(sizes) == len(study.opponents) == 7
    for size in sizes[:2]:
        assert abs(size["dense_parameters"] / 269_034 - 1) <= 0.01


def test_every_study_and_space_that_is_named_exists():
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        named = set(re.findall(r"(?:studies|search_spaces)/[\w./]*\.yaml", text))
        assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    assert "studies/digits.yaml" in (ROOT / "README.md").read_text()


def test_ci_runs_the_readme_s_test_command():
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    command = next(line for line in ci.splitlines() if line.startswith("python3 -m venv"))
    assert f"\n{command}\n" in readme
