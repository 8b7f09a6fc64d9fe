"""Results that lie in the repository: reports and figures are made of the archives beside them."""

import re
from importlib.metadata import version

import pytest
from manual import ROOT, text_of

import sculpt

RESULTS = ROOT / "studies" / "results"
ARCHIVES = sorted(path.parent.name for path in RESULTS.glob("*/study.json"))


def test_there_are_some():
    assert ARCHIVES


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_report_is_made_of_its_archive(name, tmp_path):
    written = sculpt.report(RESULTS / name, tmp_path / f"{name}.md", format="md")
    assert written.read_text() == (RESULTS / f"{name}.md").read_text()
    found, kept = (
        {path.name: path.read_bytes() for path in (folder / f"{name}-figures").iterdir()}
        for folder in (tmp_path, RESULTS)
    )
    assert sorted(found) == sorted(kept)
    pinned = re.findall(r"^vl-convert-python==(.+)$", text_of("constraints.txt"), re.MULTILINE)
    if pinned != [version("vl-convert-python")]:
        pytest.skip(f"other versions than vl-convert-python {pinned[0]} may draw other pixels")
    assert [name for name in found if found[name] != kept[name]] == []
