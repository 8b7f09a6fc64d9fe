"""`sculpt pareto`: every format, printed and written, of one study and of several."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rigged import add_trial, attributes, rigged_store

LEADING = ["study", "trial", "role", "budget", "on_front", "knee", "val_error", "kept_macs"]


def rig(folder: Path, name: str = "tiny", errors: tuple[float, ...] = (0.1, 0.15, 0.4)) -> str:
    """Start a study of a base and candidates whose MACs fall as their errors rise."""
    store = rigged_store(folder, study=name, storage=str(folder / "both.db"))
    for number, (role, error, macs) in enumerate(
        [("base", 0.2, 800.0)]
        + [("candidate", error, 700.0 - 200 * place) for place, error in enumerate(errors)]
        + [("candidate", 0.5, 900.0)]
    ):
        values = {"val_error": error, "kept_macs": macs}
        found = attributes([error], role, objectives=values, kept_macs=macs)
        add_trial(store.candidates if number else store.base, found, {"widening": number})
    return str(folder / "both.db")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return rig(tmp_path_factory.mktemp("rigged"))


def test_the_table(storage, sculpt_command):
    code, out, err = sculpt_command("pareto", "tiny", "--storage", storage, "--dominated")
    assert (code, err) == (0, "")
    assert out.startswith("Pareto front, 2 dominated")
    rows = [line for line in out.splitlines() if line.startswith(("│", "├"))]
    assert [row.split("│")[1].strip() for row in rows if "│" in row] == ["0", "1", "2", "base", "3"]
    assert rows[3].startswith("├"), "a line between the front and what it dominates"
    assert [row.count("knee") for row in rows] == [0, 1, 0, 0, 0, 0]
    # (0.2 - 0.1)(800 - 700) + (0.2 - 0.15)(700 - 500), of 0.2 · 800.
    assert "hypervolume up to the dense base: 12.50% of the product of its values" in out
    _, out, _ = sculpt_command("pareto", "tiny", "--storage", storage)
    assert "base " not in out
    assert "500" in out


def test_json_and_csv(storage, sculpt_command):
    _, out, _ = sculpt_command("pareto", "tiny", "--storage", storage, "--format", "json")
    document = json.loads(out)
    assert "dominated_rows" not in document["fronts"][0]
    assert [row["trial"] for row in document["front"]] == [0, 1, 2]
    for extra in (["--json"], ["--json", "--format", "csv"]):
        assert sculpt_command("pareto", "tiny", "--storage", storage, *extra)[1] == out
    _, out, _ = sculpt_command(
        "pareto", "tiny", "--storage", storage, "--format", "csv", "--dominated"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0])[: len(LEADING)] == LEADING
    assert {"state", "params.widening", "val_errors", "sparsity"} <= set(rows[0])
    assert [(row["trial"], row["on_front"], row["knee"]) for row in rows] == [
        ("0", "True", "False"),
        ("1", "True", "True"),
        ("2", "True", "False"),
        ("base", "False", "False"),
        ("3", "False", "False"),
    ]


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_a_file_holds_what_would_be_printed(format, storage, tmp_path, sculpt_command):
    command = ["pareto", "tiny", "--storage", storage, "--format", format]
    _, printed, _ = sculpt_command(*command)
    code, out, _ = sculpt_command(*command, "--output", tmp_path / "new" / "front")
    assert (code, out) == (0, "")
    assert (tmp_path / "new" / "front").read_text() == printed


def test_parquet(storage, tmp_path, sculpt_command):
    command = ["pareto", "tiny", "--storage", storage, "--format", "parquet"]
    code, out, err = sculpt_command(*command)
    assert (code, out) == (2, "")
    assert "give --output FILE" in err
    code, out, _ = sculpt_command(*command, "--output", tmp_path / "front.parquet")
    assert (code, out) == (0, "")
    read = pd.read_parquet(tmp_path / "front.parquet")
    assert read.columns[: len(LEADING)].tolist() == LEADING
    # Text, though this front holds no base.
    assert read["trial"].tolist() == ["0", "1", "2"]
    assert read["kept_macs"].tolist() == [700.0, 500.0, 300.0]
    assert read["val_errors"][0].tolist() == [0.1]


def test_several_studies(tmp_path, sculpt_command):
    storage = rig(tmp_path)
    rig(tmp_path, "other", errors=(0.05,))
    names = ["pareto", "tiny", "other", "--storage", storage]
    _, out, _ = sculpt_command(*names, "--json", "--where", "role == 'candidate'")
    found = [(row["study"], row["trial"]) for row in json.loads(out)["front"]]
    assert found == [("other", 0), ("tiny", 1), ("tiny", 2)]
    _, out, _ = sculpt_command(*names)
    assert "study" in out
    assert "the hypervolume is taken up to the dense base of tiny" in out
    code, _, err = sculpt_command("pareto", "tiny", "tiny", "--storage", storage)
    assert code == 2
    assert "each study must be given once" in err


@pytest.mark.parametrize("format", ["table", "csv", "json", "parquet"])
def test_nothing_has_finished(format, tmp_path, sculpt_command):
    store = rigged_store(tmp_path / "empty")
    path = tmp_path / "front"
    command = ["pareto", "tiny", "--storage", store.config.storage_url, "--dominated"]
    code, _, err = sculpt_command(*command, "--format", format, "--output", path)
    assert (code, err) == (0, "")
    if format == "table":
        assert path.read_text().startswith("Pareto front, 0 dominated")
    elif format == "csv":
        assert path.read_text() == ",".join(LEADING) + "\n"
    elif format == "json":
        assert json.loads(path.read_text())["front"] == []
    else:
        assert pd.read_parquet(path).columns.tolist() == LEADING
